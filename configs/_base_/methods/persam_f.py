# PerSAM-F: as persam.py, and two numbers are fitted to each support when it is encoded: 1000 steps
# on the masks that SAM gives for it, as published.
_base_ = 'persam.py'
model = dict(type='PerSAMF', steps=1000)
