;;; Threads as attached mutators: each allocates on its own, all add to a shared table under a mutex, and a queue with a
;;; condition variable hands work from a producer to consumers.

(define workers 4)

(define (primes-below n)                ; allocates: trial division by a list of primes
  (let loop ((i 2) (primes '()))
    (if (= i n)
        (length primes)
        (loop (+ i 1)
              (if (any (lambda (p) (and (<= (* p p) i) (= 0 (remainder i p)))) primes) primes (append primes (list i)))))))

(define shared (make-hash-table))
(define m (make-mutex 'shared))
(define (note! key n) (with-mutex m (hash-table-update!/default shared key (lambda (old) (+ old n)) 0)))

(define started
  (map (lambda (id)
         (thread-start!
           (make-thread
             (lambda ()
               (do ((i 0 (+ i 1))) ((= i 200) (primes-below 800))
                 (note! 'total 1)
                 (note! (remainder i 7) (length (make-list 50 i)))
                 (thread-yield!)))
             id)))
       (iota workers)))
(display (map thread-join! started)) (newline)
(display (sort (map cdr (hash-table->alist shared)) <)) (newline)

;; a bounded queue
(define queue '())
(define changed (make-condition-variable))
(define lock (make-mutex))
(define done #f)
(define (put! x)
  (mutex-lock! lock)
  (set! queue (append queue (list x)))
  (condition-variable-signal! changed)
  (mutex-unlock! lock))
(define (take!)                         ; #f when the producer has finished
  (mutex-lock! lock)
  (cond ((pair? queue) (let ((x (car queue))) (set! queue (cdr queue)) (mutex-unlock! lock) x))
        (done (mutex-unlock! lock) #f)
        (else (mutex-unlock! lock changed) (take!))))

(define consumers
  (map (lambda (id)
         (thread-start! (make-thread (lambda () (let loop ((sum 0)) (let ((x (take!))) (if x (loop (+ sum x)) sum)))))))
       (iota 3)))
(do ((i 1 (+ i 1))) ((> i 500)) (put! i))
(mutex-lock! lock) (set! done #t) (condition-variable-broadcast! changed) (mutex-unlock! lock)
(display (apply + (map thread-join! consumers))) (newline)

;; an error in a thread arrives at its join
(display (guard (e (#t (list 'joined (error-object-message (uncaught-exception-reason e))))) (thread-join! (thread-start! (make-thread (lambda () (error "inside"))))))) (newline)
