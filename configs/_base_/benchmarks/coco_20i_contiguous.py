# COCO-20i with PANet's folds: fold F tests classes 20F+1 .. 20F+20.
_base_ = 'coco_20i.py'
benchmark = 'coco-20i-contiguous'
train_dataloader = dict(dataset=dict(benchmark=benchmark))
val_dataloader = dict(dataset=dict(benchmark=benchmark))
test_dataloader = dict(dataset=dict(benchmark=benchmark))
