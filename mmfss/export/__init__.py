"""A method as graphs for OpenVINO or ONNX, and labels from them without torch.

    graphs    the parts of a method as torch.export has them
    formats   graphs as files of a runtime
    folder    all of an export: graphs, manifest, runner
    runner    labels photos with such a folder; a file by itself, which is copied into each

A method says by :meth:`~mmfss.methods.base.FewShotModel.not_static` what has no graph.
"""
