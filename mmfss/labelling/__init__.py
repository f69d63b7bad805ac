"""Label a folder of images: ``python tools/label.py SUPPORT IMAGES OUT``, or ``mmfss-label``.

What a run leaves in OUT; N classes, label i is the i-th of them and 0 the background:

=====================  ===========================================================================
ann_dir/<name>.png     label of ``<name>.<any ending>`` below the folder of images: palette PNG of
                       0..N in VOC's colours, as large as the upright image (EXIF, as mmcv loads it)
overlays/<name>.jpg    the image with its classes, long side at most 1600 pixels
geotiff/<name>.tif     the label of a GeoTIFF with its georeference, where rasterio is installed
annotations.json       COCO's detection format: per image and class that is there one annotation,
                       its whole region as run-length code (text), with the object score as
                       ``score``; with ``--instances`` one per object, with a score of its own, see
                       :mod:`mmfss.labelling.annotations`; ``file_name`` relative to the folder of
                       images
<format>/              with ``--format``, labels in the forms of other tools, see
                       :mod:`mmfss.labelling.formats`
scores/                with ``--keep-scores``, what labels were decided by
scores.csv             least certain first: image, certainty, and for each class object score,
                       present (0 or 1), share of the pixels, confidence (see
                       :class:`mmfss.apis.Prediction`)
failed.csv             images that could not be labelled, and why; tried again by the next run
dataset.py, lists/,    config fragment with ``labelled_dataset`` for mmseg, and the names and paths
labelled.json          that it reads; they may be moved with OUT
support.png            the supports with their masks
left_out.csv           what of the supports was left out, or read otherwise than written, and why;
                       only where there is something
support.safetensors    the same as a support file: SUPPORT of further runs
run.json               what determines the results; a run goes on only where it is equal
records/               what is known of each image, see :mod:`mmfss.labelling.records`
=====================  ===========================================================================

Every file is whole or not there, at any moment. A label that a person has corrected is kept by
further runs, and annotations.json and scores.csv (present, share) follow it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmfss.labelling.run import Summary, label_folder

__all__ = ['Summary', 'label_folder']


def __getattr__(name: str) -> Any:
    """Both when they are asked for: the help of the command needs this page alone."""
    if name in __all__:
        from mmfss.labelling import run

        return getattr(run, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
