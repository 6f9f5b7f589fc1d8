;; Cars and cdrs, by the inlined instructions and by the procedures.
(include "barrier.inc")
(define (go name get put!) (move-around name 3000 6000 (lambda (x) (cons x x)) get put!))
(go "set-car!" car (lambda (p x) (set-cdr! p '()) (set-car! p x)))
(go "set-cdr!" cdr (lambda (p x) (set-car! p '()) (set-cdr! p x)))
(go "set-car! as a value" car (let ((put! set-car!)) (lambda (p x) (set-cdr! p '()) (put! p x))))
(go "set-cdr! as a value" cdr (let ((put! set-cdr!)) (lambda (p x) (set-car! p '()) (put! p x))))
