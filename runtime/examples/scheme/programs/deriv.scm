;;; Symbolic derivatives, many times over: allocation of short lists, dispatch on symbols.
;;;     scheme deriv.scm [times]           60,000 unless told

(define times
  (let ((arguments (cdr (command-line))))
    (if (pair? arguments) (string->number (car arguments)) 60000)))

(define (derive e x)
  (cond ((number? e) 0)
        ((symbol? e) (if (eq? e x) 1 0))
        (else
         (case (car e)
           ((+ -) (cons (car e) (map (lambda (a) (derive a x)) (cdr e))))
           ((*) (list '* e (cons '+ (map (lambda (a) (list '/ (derive a x) a)) (cdr e)))))
           ((/) (let ((u (cadr e)) (v (caddr e)))
                  (list '- (list '/ (derive u x) v) (list '/ (list '* u (derive v x)) (list '* v v)))))
           ((expt) (list '* (caddr e) (list 'expt (cadr e) (- (caddr e) 1)) (derive (cadr e) x)))
           (else (error "no rule for" (car e)))))))

(define (size e) (if (pair? e) (+ (size (car e)) (size (cdr e))) 1))

(define polynomial '(+ (* 3 x x) (* a x x) (* b x) 5 (expt x 7) (/ (+ x 1) (- x 1))))

(write (derive polynomial 'x)) (newline)
(do ((i 0 (+ i 1)) (total 0 (+ total (size (derive polynomial 'x))))) ((= i times) (write total) (newline)))
(do ((e polynomial (derive e 'x)) (i 0 (+ i 1))) ((= i 5) (write (size e)) (newline)))
