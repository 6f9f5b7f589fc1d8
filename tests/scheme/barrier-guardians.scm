;; Guardians: what has died is linked in front of what waits in the queue, and taken from there; each object is registered anew.
(include "barrier.inc")
(define n 1000)
(define g (make-guardian))
(define seen (make-vector n #f))
(define kept (let loop ((i 0) (l '())) (if (= i 3000) l (loop (+ i 1) (cons (vector i) l)))))
(do ((i 0 (+ i 1))) ((= i n)) (g (list i)))
(define rounds 20)
(define (again count) ; takes half of what there is, slowly, so that the rest waits in the queue through a cycle or more
  (let ((x (and (> count 0) (g))))
    (if x (begin (allocate 30) (g x) (again (- count 1))))))
(do ((round 0 (+ round 1))) ((= round rounds)) (again (quotient n 2)) (do ((i 0 (+ i 1))) ((= i 100)) (allocate 100)))
(let loop ((count 0) (empty 0))
  (let ((x (g)))
    (cond ((and x (vector-ref seen (car x))) (loop count empty)) ; again: it was registered twice since
          (x (vector-set! seen (car x) #t) (loop (+ count 1) 0))
          ((and (< count n) (< empty 5)) (collect-garbage) (loop count (+ empty 1))))))
(check "objects of a guardian" n (lambda (i) (if (vector-ref seen i) i 0)))
