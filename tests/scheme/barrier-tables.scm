;; Hash tables: entries that change their value, that are taken out of the middle and from the front of a chain and come back in
;; another table, and tables that grow.
(include "barrier.inc")
(define keys 30)
(define (table x) (let ((t (make-hash-table eqv?))) (do ((i 0 (+ i 1))) ((= i keys)) (hash-table-set! t i x)) t))
(define (get p) (hash-table-ref (car p) (cdr p)))
(move-around "values of entries" 1000 6000
  (lambda (x) (let ((key (random keys))) (cons (table x) key)))
  get
  (lambda (p x) (do ((i 0 (+ i 1))) ((= i keys)) (if (not (= i (cdr p))) (hash-table-set! (car p) i 0))) (hash-table-set! (car p) (cdr p) x)))
(move-around "entries that move" 1000 6000
  (lambda (x) (let ((t (table 0)) (key (random keys))) (hash-table-set! t key x) (cons t key)))
  get
  (lambda (p x) (hash-table-delete! (car p) (cdr p)) (allocate 30) (set-cdr! p (random keys)) (hash-table-set! (car p) (cdr p) x)))

;; Growing moves each link of a chain: the table's whole contents hang on it.
(define (fill! t from to) (do ((i from (+ i 1))) ((= i to) t) (hash-table-set! t i (list i))))
(define tables (make-vector 300 #f))
(define (renew i) (vector-set! tables i (fill! (make-hash-table eqv?) 0 33)))
(do ((i 0 (+ i 1))) ((= i 300)) (renew i))
(do ((round 0 (+ round 1))) ((= round 3000))
  (let* ((i (random 300)) (t (vector-ref tables i)))
    (if (< (hash-table-size t) 65) (fill! t 33 66) (renew i))))
(check "tables that grow" 33 (lambda (i) (car (hash-table-ref (vector-ref tables i) i))))
