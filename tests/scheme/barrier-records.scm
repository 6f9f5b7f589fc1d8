;; Fields of records, and the cells that promises share.
(include "barrier.inc")
(define-record-type place (make-place x) place? (x place-x set-place-x!))
(move-around "fields of records" 3000 6000 make-place place-x set-place-x!)
(move-around "promises" 3000 6000 make-promise
  (lambda (p) (if (pair? p) p (force p)))
  (lambda (p x) (%promise-cell p (%promise-cell (make-promise x)))))
