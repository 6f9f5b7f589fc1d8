;;; GCBench, after the artificial garbage collection benchmark of John Ellis, Pete Kovac and Hans Boehm: binary trees made bottom up
;;; and top down, of growing depth, while a long-lived tree and an array of floats stay alive.
;;;     scheme gcbench.scm [depth [size]]  the deepest tree, and the array's size; 16 and 500,000 unless told

(define (argument n default)
  (let ((arguments (cdr (command-line))))
    (if (> (length arguments) n) (string->number (list-ref arguments n)) default)))
(define max-depth (argument 0 16))
(define min-depth 4)
(define long-lived-depth (- max-depth 2))
(define array-size (argument 1 500000))

(define-record-type node (make-node left right) node? (left node-left set-node-left!) (right node-right set-node-right!))

(define (tree-size depth) (- (expt 2 (+ depth 1)) 1))

;; Enough trees of one depth to allocate twice what the deepest takes.
(define (iterations depth) (quotient (* 2 (tree-size max-depth)) (tree-size depth)))

(define (populate! node depth)          ; top down: old objects come to point to young ones
  (if (> depth 0)
      (begin
        (set-node-left! node (make-node #f #f))
        (set-node-right! node (make-node #f #f))
        (populate! (node-left node) (- depth 1))
        (populate! (node-right node) (- depth 1)))))

(define (make-tree depth)               ; bottom up
  (if (= depth 0)
      (make-node #f #f)
      (let ((left (make-tree (- depth 1))))
        (make-node left (make-tree (- depth 1))))))

(define (count-nodes node)
  (if node (+ 1 (count-nodes (node-left node)) (count-nodes (node-right node))) 0))

(define (construct depth)
  (let ((n (iterations depth)))
    (do ((i 0 (+ i 1)) (total 0 (+ total (let ((root (make-node #f #f))) (populate! root depth) (count-nodes root)))))
        ((= i n) (display (list 'top-down n 'trees 'of 'depth depth total 'nodes)) (newline)))
    (do ((i 0 (+ i 1)) (total 0 (+ total (count-nodes (make-tree depth)))))
        ((= i n) (display (list 'bottom-up n 'trees 'of 'depth depth total 'nodes)) (newline)))))

(define long-lived (make-node #f #f))
(populate! long-lived long-lived-depth)
(define array (make-vector array-size 0.))
(do ((i 0 (+ i 1))) ((= i (quotient array-size 2))) (vector-set! array i (/ 1. (+ i 1))))

(do ((depth min-depth (+ depth 2))) ((> depth max-depth)) (construct depth))

(if (not (and (= (count-nodes long-lived) (tree-size long-lived-depth)) (= (vector-ref array 1000) (/ 1. 1001))))
    (error "the long-lived data are damaged"))
(display "long-lived data intact") (newline)
