# On images of 128 px it is density.py, whose network is small already.
_base_ = 'density.py'
