;;; The toplevel reads from standard input (repl.in).
