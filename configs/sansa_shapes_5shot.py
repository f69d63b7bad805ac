# SANSA on Shapes-5i, 5-shot. One run per fold: FOLD=0 .. FOLD=3.
_base_ = 'sansa_shapes_1shot.py'

train_dataloader = dict(dataset=dict(shots=5))
test_dataloader = dict(dataset=dict(shots=5))
