;; Variables: captured ones that are assigned, which live in boxes, and globals, which live in symbols.
(include "barrier.inc")
(define (variable x) (lambda new (if (null? new) x (set! x (car new)))))
(define (get p) (p))
(define (put! p x) (p x))
(move-around "captured variables" 3000 6000 variable get put!)

(define count 0)
(define (global x)
  (set! count (+ count 1))
  (let ((name (string->symbol (string-append "global-" (number->string count)))))
    (eval (list 'define name #f))
    (let ((p (eval `(lambda new (if (null? new) ,name (set! ,name (car new)))))))
      (p x)
      p)))
(move-around "globals" 1000 6000 global get put!)

;; A definition that takes a variable's name for a macro overwrites its value, too.
(define (keyword name) (eval (list 'define-syntax name '(syntax-rules () ((_) #f)))))
(move-around "globals that become macros" 500 1500
  (lambda (x) (let ((p (global x))) (vector p (string->symbol (string-append "global-" (number->string count))))))
  (lambda (p) ((vector-ref p 0)))
  (lambda (p x)
    (keyword (vector-ref p 1))
    (allocate 30)
    (eval (list 'define (vector-ref p 1) #f))
    ((vector-ref p 0) x)))
