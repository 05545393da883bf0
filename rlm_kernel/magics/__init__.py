"""`%load_ext rlm_kernel`: `%%rlm` and `%rlm`, questions over the variables of a notebook."""
