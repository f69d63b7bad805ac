# PerSAM-F on images of 128 px, see persam.py.
_base_ = 'persam.py'
model = dict(type='PerSAMF', steps=1000)
