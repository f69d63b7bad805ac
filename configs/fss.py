# Any method on any benchmark:
#   METHOD=prototype BENCHMARK=coco_20i FOLD=1 SHOTS=5 python tools/test.py configs/fss.py
# or, which is the same, `--method prototype --benchmark coco_20i --fold 1` after the config. METHOD
# is a file of _base_/methods, BENCHMARK one of _base_/benchmarks; - is taken for _. What else the
# environment sets (SAM2, SELECTION, DATA_ROOT) is said in these files. A new method is a file in
# _base_/methods and one in _base_/methods/small: its networks for the 128 px of Shapes-5i.
_base_ = [
    '_base_/methods/'
    + ('small/' if 'shapes' in '{{$BENCHMARK:pascal_5i}}' else '')
    + '{{$METHOD:fssam}}.py'.replace('-', '_'),
    '_base_/benchmarks/' + '{{$BENCHMARK:pascal_5i}}.py'.replace('-', '_'),
]
side, how = _base_.model.get('image_size'), _base_.model.get('resize', 'bilinear')
if side and 'shapes' not in '{{$BENCHMARK:pascal_5i}}':  # at the size and in the way of the method
    resize = dict(type='Resize', scale=(side, side))
    if how != 'bilinear':
        resize.update(backend='pillow', interpolation=how.replace('pillow_', ''))
    label = [dict(type='LoadLabel'), dict(type='BinarizeLabel')]
    test_dataloader = dict(
        dataset=dict(
            query_pipeline=[_base_.test_dataloader.dataset.query_pipeline[0], resize, *label],
            support_pipeline=[_base_.test_dataloader.dataset.support_pipeline[0], *label, resize],
        )
    )
    # what the method says of its training comes before what the benchmark does
    recipe = _base_.get('recipe')
    if recipe and _base_.get('train_dataloader'):
        pipeline = [dict(type='LoadImage'), *label, resize, *recipe.get('augment', [])]
        train_dataloader = dict(
            batch_size=recipe.batch_size,
            sampler=dict(passes=1.0),
            dataset=dict(query_pipeline=pipeline, support_pipeline=pipeline),
        )
        val_dataloader = test_dataloader
        optim_wrapper = dict(_delete_=True, **recipe.optim_wrapper)
        param_scheduler = dict(_delete_=True, **recipe.param_scheduler)
        train_cfg = dict(max_epochs=recipe.epochs)
        auto_scale_lr = dict(base_batch_size=recipe.batch_size)
        custom_hooks = [dict(type='EpisodeVisualizationHook')]
        del pipeline
    del resize, label, recipe
del side, how
if _base_.model.get('loss_decode') is None:  # a method that is not trained is only tested
    train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
    val_dataloader = val_evaluator = val_cfg = None
