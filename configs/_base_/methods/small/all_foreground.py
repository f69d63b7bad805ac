# Every pixel of 128 x 128.
_base_ = '../all_foreground.py'
model = dict(image_size=128)
