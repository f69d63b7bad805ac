# The network for images of 128 px is no DINO: the same as small/insid3.py.
_base_ = 'insid3.py'
