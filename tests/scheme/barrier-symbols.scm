;; The table of symbols: a new symbol goes to the front of a chain, and the rest of the chain hangs on it.
(include "barrier.inc")
(define n 20000)
(define (name i) (string-append "symbol-" (number->string i)))
(define kept (make-vector n #f))
(do ((i 0 (+ i 1))) ((= i n)) (vector-set! kept i (vector i)) (string->symbol (name i)))
(define (number i) (string->number (substring (symbol->string (string->symbol (name i))) 7)))
(check "symbols" n (lambda (i) (number i)))
