"""The warp dialect: kernels after scheduling."""
