;; Weak hash tables: an entry goes when nothing but the table, or its own value, leads to its key.
(define (show . l) (for-each display l) (newline))
(define (keys n) (map list (iota n)))
(define (clear-stack n) (if (> n 0) (+ 1 (clear-stack (- n 1))) 0)) ; what lies above the top of the stack is no root anyway
(define (collect) (clear-stack 100) (collect-garbage))

(define t (make-weak-eq-hash-table))
(show (hash-table? t) " " (hash-table-weak? t) " " (hash-table-weak? (make-hash-table)))
(define kept (keys 100))
(for-each (lambda (k) (hash-table-set! t k (* 2 (car k)))) kept)
(for-each (lambda (k) (hash-table-set! t k 'dropped)) (keys 400))
(collect)
(show (hash-table-size t) " of 500 live: " (apply + (map (lambda (k) (hash-table-ref t k)) kept)))
(show (length (hash-table->alist t)) " " (length (hash-table-keys t)))

;; A value that leads to its key does not keep it, nor do two entries whose values lead to each other's keys.
(for-each (lambda (k) (hash-table-set! t k (vector k k))) (keys 50))
(let ((a (list 'a)) (b (list 'b))) (hash-table-set! t a b) (hash-table-set! t b a))
(collect)
(show (hash-table-size t))
;; A chain: each value is the next key; the first key keeps them all.
(define first (list 'first))
(define (chain k n) (if (> n 0) (let ((next (list n))) (hash-table-set! t k next) (chain next (- n 1)))))
(chain first 10000)
(collect)
(show (hash-table-size t) " " (let loop ((k first) (n 0)) (let ((next (hash-table-ref/default t k #f))) (if next (loop next (+ n 1)) n))))
(set! first #f)
(collect)
(show (hash-table-size t))

;; It is a hash table: update, delete, contains, copy, clear.
(define k (car kept))
(hash-table-update! t k (lambda (x) (+ x 7)))
(hash-table-update!/default t (cadr kept) (lambda (x) (+ x 7)) 0)
(show (hash-table-ref t k) " " (hash-table-ref t (cadr kept)) " " (hash-table-contains? t k) " " (hash-table-contains? t (list 0)))
(hash-table-delete! t k)
(show (hash-table-size t) " " (hash-table-ref/default t k 'gone))
(define copy (hash-table-copy t))
(show (hash-table-weak? copy) " " (hash-table-size copy))
(hash-table-clear! copy)
(show (hash-table-size copy) " " (hash-table-size t))

;; What is no object never dies; numbers, symbols, procedures, strings and records as keys.
(define any (make-weak-hash-table))
(define-record-type point (make-point x) point? (x point-x))
(for-each (lambda (key) (hash-table-set! any key 'here)) (list 1 #\a '() #t 'symbol car 1.5 (string #\s) (make-point 1) (lambda () 1)))
(collect)
(show (map (lambda (key) (hash-table-ref/default any key 'gone)) (list 1 #\a '() #t 'symbol car)))
(show (hash-table-ref/default any (string #\s) 'gone))

;; A table through which many keys pass does not grow.
(define passing (make-weak-eqv-hash-table))
(do ((i 0 (+ i 1))) ((= i 50000)) (hash-table-set! passing (list i) (make-vector 3 i)))
(collect)
(show (hash-table-size passing))
(set! kept #f)
(collect)
(show (hash-table-size t))
