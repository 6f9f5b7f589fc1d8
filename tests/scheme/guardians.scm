;; Guardians: what was registered comes back when nothing else leads to it, once for each registration.
(define (show . l) (for-each display l) (newline))
(define (all g) (let loop ((l '())) (let ((x (g))) (if x (loop (cons x l)) l))))
(define (sorted g) (sort (all g) (lambda (a b) (< (car a) (car b)))))
(define g (make-guardian))
(show (g))
(define kept (list 1))
(g kept)
(for-each (lambda (i) (g (list i))) '(2 3 4))
(collect-garbage)
(show (sorted g) " " (g))
(collect-garbage)
(show (g))
(set! kept #f)
(collect-garbage)
(show (all g))

;; Twice with one, once with another.
(define h (make-guardian))
(let ((x (list 5))) (g x) (g x) (h x))
(collect-garbage)
(show (all g) (all h))
;; It may be registered anew, and then lives on.
(g (list 6))
(collect-garbage)
(define six (g))
(g six)
(collect-garbage)
(show (g) " " six)
(set! six #f)
(collect-garbage)
(show (all g))

;; Any object; and what it leads to comes with it, cycles too.
(define-record-type place (make-place name next) place? (name place-name) (next place-next set-place-next!))
(let ((a (make-place "a" #f)))
  (set-place-next! a (make-place "b" a))
  (g a))
(collect-garbage)
(let ((a (g))) (show (place-name a) (place-name (place-next a)) (eq? a (place-next (place-next a)))))
(for-each g (list (vector 1 2) (string #\s) (lambda () 7) (make-parameter 8) 1 'symbol #t (delay 1)))
(collect-garbage)
(show (sort (map (lambda (x) (cond ((vector? x) "vector") ((string? x) x) ((promise? x) "promise") (else (number->string (x))))) (all g)) string<?))

;; When it comes back, weak tables have let go of it.
(define t (make-weak-eq-hash-table))
(let ((x (list 9))) (g x) (hash-table-set! t x 'value))
(collect-garbage)
(let ((x (g))) (show x (hash-table-ref/default t x 'gone) (hash-table-size t)))

;; A guardian that is itself dropped, and many objects with it.
(let ((dropped (make-guardian))) (do ((i 0 (+ i 1))) ((= i 1000)) (dropped (list i))))
(collect-garbage)
(do ((i 0 (+ i 1))) ((= i 20000)) (g (list 1)))
(collect-garbage)
(show (apply + (map car (all g))))

;; Threads that share one.
(define shared (make-guardian))
(define (work) (do ((i 0 (+ i 1))) ((= i 5000)) (shared (list 1))))
(let ((threads (map (lambda (i) (thread-start! (make-thread work))) '(1 2 3)))) (for-each thread-join! threads))
(collect-garbage)
(show (apply + (map car (all shared))))
