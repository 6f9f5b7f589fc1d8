;;; A theorem prover after Boyer's benchmark: rewrite a formula by lemmas until none applies, then see whether what is left, a nest of
;;; conditionals, is a tautology. Makes many short-lived pairs, and walks deep terms. Written anew for this directory, with fewer
;;; lemmas than the benchmark, so times are not to be compared with published ones.

(define lemmas (make-hash-table eq?))   ; operator -> list of (left . right)
(define (lemma! l)
  (hash-table-update!/default lemmas (caadr l) (lambda (old) (append old (list (cons (cadr l) (caddr l))))) '()))

(for-each lemma!
  '((equal (and p q) (if p (if q (true) (false)) (false)))
    (equal (or p q) (if p (true) (if q (true) (false))))
    (equal (not p) (if p (false) (true)))
    (equal (implies p q) (if p (if q (true) (false)) (true)))
    (equal (iff p q) (and (implies p q) (implies q p)))
    (equal (if (if a b c) d e) (if a (if b d e) (if c d e)))
    (equal (zerop x) (or (equal x (zero)) (not (numberp x))))
    (equal (boolean x) (or (equal x (true)) (equal x (false))))
    (equal (greaterp x y) (lessp y x))
    (equal (lesseqp x y) (not (lessp y x)))
    (equal (fix x) (if (numberp x) x (zero)))
    (equal (plus (plus x y) z) (plus x (plus y z)))
    (equal (equal (plus a b) (zero)) (and (zerop a) (zerop b)))
    (equal (difference x x) (zero))
    (equal (equal (plus a b) (plus a c)) (equal (fix b) (fix c)))
    (equal (equal (zero) (difference x y)) (not (lessp y x)))
    (equal (equal x (difference x y)) (and (numberp x) (or (equal x (zero)) (zerop y))))
    (equal (append (append x y) z) (append x (append y z)))
    (equal (reverse (append a b)) (append (reverse b) (reverse a)))
    (equal (times x (plus y z)) (plus (times x y) (times x z)))
    (equal (times (times x y) z) (times x (times y z)))
    (equal (equal (times x y) (zero)) (or (zerop x) (zerop y)))
    (equal (member x (append a b)) (or (member x a) (member x b)))
    (equal (member x (reverse y)) (member x y))
    (equal (length (reverse x)) (length x))
    (equal (remainder x x) (zero))
    (equal (lessp (remainder x y) y) (not (zerop y)))
    (equal (lessp (plus x y) (plus x z)) (lessp y z))
    (equal (lessp y (plus x y)) (not (zerop x)))
    (equal (difference (plus x y) x) (fix y))
    (equal (difference (plus y x) x) (fix y))
    (equal (remainder (times x z) z) (zero))))

(define substitution
  '((x . (f (plus (plus a b) (plus c (zero)))))
    (y . (f (times (times a b) (plus c d))))
    (z . (f (reverse (append (append a b) (nil)))))
    (u . (equal (plus a b) (difference x y)))
    (w . (lessp (remainder a b) (member a (length b))))))

(define theorem
  '(implies (and (implies x y) (and (implies y z) (and (implies z u) (implies u w)))) (implies x w)))

(define (substitute term bindings)
  (if (pair? term)
      (cons (car term) (map (lambda (t) (substitute t bindings)) (cdr term)))
      (let ((b (assq term bindings))) (if b (cdr b) term))))

;; The bindings under which the pattern is the term, or #f. Symbols in a pattern are variables.
(define (unify term pattern bindings)
  (cond ((symbol? pattern)
         (let ((b (assq pattern bindings)))
           (if b (and (equal? (cdr b) term) bindings) (cons (cons pattern term) bindings))))
        ((and (pair? term) (eq? (car term) (car pattern)))
         (let loop ((terms (cdr term)) (patterns (cdr pattern)) (bindings bindings))
           (cond ((not bindings) #f)
                 ((null? terms) (and (null? patterns) bindings))
                 ((null? patterns) #f)
                 (else (loop (cdr terms) (cdr patterns) (unify (car terms) (car patterns) bindings))))))
        (else #f)))

(define rewrites 0)
(define (rewrite term)
  (set! rewrites (+ rewrites 1))
  (if (pair? term)
      (let ((term (cons (car term) (map rewrite (cdr term)))))
        (let loop ((rules (hash-table-ref/default lemmas (car term) '())))
          (if (null? rules)
              term
              (let ((bindings (unify term (caar rules) '())))
                (if bindings (rewrite (substitute (cdar rules) bindings)) (loop (cdr rules)))))))
      term))

(define (tautology? term true false)    ; what is known to be so, and not to be so
  (cond ((or (equal? term '(true)) (member term true)) #t)
        ((or (equal? term '(false)) (member term false)) #f)
        ((and (pair? term) (eq? (car term) 'if))
         (let ((test (cadr term)) (yes (caddr term)) (no (cadddr term)))
           (cond ((or (equal? test '(true)) (member test true)) (tautology? yes true false))
                 ((or (equal? test '(false)) (member test false)) (tautology? no true false))
                 (else (and (tautology? yes (cons test true) false) (tautology? no true (cons test false)))))))
        (else #f)))

(define (prove n)                       ; n: how often the theorem is weakened by "or false", which makes it harder
  (set! rewrites 0)
  (let loop ((i 0) (term theorem))
    (if (< i n)
        (loop (+ i 1) (list 'or term '(false)))
        (let ((proved (tautology? (rewrite (substitute term substitution)) '() '())))
          (display (list 'weakened n 'proved proved 'rewrites rewrites))
          (newline)))))
(let ((arguments (cdr (command-line)))) ; scheme nboyer.scm [n]: up to n times; twice unless told
  (do ((most (if (pair? arguments) (string->number (car arguments)) 2)) (n 0 (+ n 1))) ((> n most)) (prove n)))
