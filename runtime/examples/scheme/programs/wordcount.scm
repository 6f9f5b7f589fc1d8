;;; Counts the words of a text that it makes itself, by a fixed sequence of pseudo-random numbers: string ports, strings, SRFI 69.

(define seed 42)
(define (random n)
  (set! seed (modulo (+ (* seed 69069) 12345) 2147483648))
  (modulo (quotient seed 65536) n))

(define syllables (vector "ba" "co" "di" "fu" "ga" "ho" "ki" "lu" "me" "no" "pa" "qua" "re" "sto" "tri" "va"))
(define (random-word)
  (let loop ((n (+ 1 (random 3))) (word ""))
    (if (= n 0) word (loop (- n 1) (string-append word (vector-ref syllables (random (+ 1 (random 16)))))))))

(define text
  (call-with-output-string
    (lambda (port)
      (do ((i 0 (+ i 1))) ((= i 60000))
        (write-string (random-word) port)
        (write-char (if (= 0 (random 10)) #\newline #\space) port)))))

(define (read-word port)                ; #f at the end
  (let skip ((c (read-char port)))
    (cond ((eof-object? c) #f)
          ((char-whitespace? c) (skip (read-char port)))
          (else
           (let loop ((c c) (letters '()))
             (if (or (eof-object? c) (char-whitespace? c))
                 (list->string (reverse letters))
                 (loop (read-char port) (cons c letters))))))))

(define counts (make-hash-table string=? string-hash))
(define in (open-input-string text))
(let loop ((total 0))
  (let ((word (read-word in)))
    (if word
        (begin
          (hash-table-update!/default counts word (lambda (n) (+ n 1)) 0)
          (loop (+ total 1)))
        (begin (display (list total 'words (hash-table-size counts) 'different)) (newline)))))

(define ranked
  (sort (hash-table->alist counts)
        (lambda (a b) (or (> (cdr a) (cdr b)) (and (= (cdr a) (cdr b)) (string<? (car a) (car b)))))))
(for-each (lambda (e) (display (car e)) (display " ") (display (cdr e)) (newline)) (let first ((l ranked) (n 12)) (if (= n 0) '() (cons (car l) (first (cdr l) (- n 1))))))
(display (list 'sum (fold (lambda (e n) (+ n (cdr e))) 0 ranked))) (newline)
