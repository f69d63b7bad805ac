# On images of 128 px it is prototype.py, whose network is small already.
_base_ = 'prototype.py'
