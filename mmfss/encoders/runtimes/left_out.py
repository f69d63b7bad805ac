"""What of an encoder stays in fp32 where the rest is in bf16 or int8: as many of its first products
as it takes for its features to be near torch's.

Rounding costs most in the first layers: what they lose, all the others take for an image
(docs/runtimes.md has masks with and without).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from . import converted

if TYPE_CHECKING:
    import openvino

COUNTS = (0, 4, 8, 16)
"""How many products are left out, tried one after the other."""
NEAR = dict(bf16=0.03, int8=0.06)
"""The relative L2 of features, of noise for bf16 and of calibration photos for int8, with which
masks on Shapes-5i agree as they should (mean IoU 0.99 and 0.97)."""
_PRODUCTS = frozenset({'MatMul', 'Convolution', 'GroupConvolution'})


def names(model: openvino.Model, count: int) -> list[str]:
    """Operations that int8 leaves out: the first ``count`` products, and, where these are any, the
    last ones before each output.

    Args:
        model: one in fp32.
        count: 0 leaves out nothing.
    """
    if not count:
        return []
    products = [one for one in model.get_ordered_ops() if one.get_type_name() in _PRODUCTS]
    found = {one.get_friendly_name() for one in products[:count]}
    todo, seen = [port.get_node() for port in model.outputs], set()
    while todo:
        one = todo.pop()
        name = one.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if one.get_type_name() in _PRODUCTS:
            found.add(name)
        else:
            todo += [port.get_source_output().get_node() for port in one.inputs()]
    return sorted(found)


def save(model: openvino.Model, path: Path, count: int = 0) -> None:
    """Write a model of which bf16 leaves out all that comes before the product after the first
    ``count`` ones.

    OpenVINO 2026.4 keeps an operation in fp32 whose entry in the file says ``precise``, which
    Python has no function for.

    Args:
        model: one in fp32.
        path: its .xml; the weights go beside it.
        count: 0 leaves out nothing.
    """
    converted.save(model, path)
    if not count:
        return
    tree, seen = ElementTree.parse(path), 0
    for layer in tree.getroot().iterfind('layers/layer'):
        seen += layer.get('type') in _PRODUCTS
        if seen > count:
            break
        if layer.get('type') not in ('Parameter', 'Const', 'Result'):
            about = layer.find('rt_info')
            if about is None:
                about = ElementTree.Element('rt_info')
                layer.insert(int(layer.find('data') is not None), about)
            ElementTree.SubElement(about, 'attribute', name='precise', version='0')
    tree.write(path)
