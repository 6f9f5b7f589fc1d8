module besom.bench

go 1.24
