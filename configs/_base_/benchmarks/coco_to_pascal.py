# COCO -> PASCAL: a model trained on COCO-20i fold F (configs/fss_sam2_coco_1shot.py) is tested on
# the PASCAL classes that this fold holds out. Only a test. DATA_ROOT is the VOC2012 folder.
_base_ = ['../datasets/pascal_5i.py', '../default_runtime.py']
train_dataloader = None
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = dict(dataset=dict(benchmark='coco-to-pascal'))
test_cfg = dict(type='TestLoop')
