;; What mutexes and their like refer to. A thread that was never started has no stack that would keep it.
(include "barrier.inc")
(define (mutex-with x) (let ((m (make-mutex))) (mutex-specific-set! m x) m))
(move-around "mutex-specific-set!" 3000 6000 mutex-with mutex-specific mutex-specific-set!)
(define (owned-mutex x) (let ((m (make-mutex))) (mutex-lock! m #f (make-thread car x)) m))
(move-around "owners of mutexes" 2000 6000 owned-mutex
  (lambda (m) (thread-name (mutex-state m)))
  (lambda (m x) (mutex-unlock! m) (mutex-lock! m #f (make-thread car x))))
