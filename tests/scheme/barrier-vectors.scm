;; Elements of vectors, stored by each procedure that stores there; in the second a variable keeps the call from being inlined.
(include "barrier.inc")
(define (go name put!)
  (move-around name 3000 6000 (lambda (x) (vector x)) (lambda (p) (vector-ref p 0)) put!))
(go "vector-set!" (lambda (p x) (vector-set! p 0 x)))
(go "vector-set! as a value" (let ((put! vector-set!)) (lambda (p x) (put! p 0 x))))
(go "vector-fill!" (lambda (p x) (vector-fill! p x)))
(go "vector-copy!" (lambda (p x) (vector-copy! p 0 (vector x))))
