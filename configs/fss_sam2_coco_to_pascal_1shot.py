# FSSAM trained on COCO-20i, tested on PASCAL VOC, 1-shot:
#   python tools/test.py configs/fss_sam2_coco_to_pascal_1shot.py --folds 0 1 2 3 \
#       'work_dirs/fss_sam2_coco_1shot/fold{fold}/best_mIoU_*.pth'
_base_ = ['_base_/methods/fssam.py', '_base_/benchmarks/coco_to_pascal.py']
