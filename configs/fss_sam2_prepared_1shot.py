# FSSAM on a dataset made by tools/prepare.py, 1-shot (another K in a test: --shots 5):
#   python tools/prepare.py folder my_photos data/mine
#   DATA_ROOT=data/mine python tools/test.py configs/fss_sam2_prepared_1shot.py CHECKPOINT
# Training takes a benchmark with base classes and a split 'train', such as FSS-1000.
_base_ = ['_base_/methods/fssam.py', '_base_/benchmarks/prepared.py']
