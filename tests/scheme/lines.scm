;;; An uncaught error ends the program: its file and line are reported, and what was printed before is there.
(display "before")
(newline)
(define (inner x)
  (vector-ref
    x
    10))
(define (outer x)
  (let ((y (inner x)))
    (+ y 1)))

(outer
  (vector 1 2 3))
(display "never")
