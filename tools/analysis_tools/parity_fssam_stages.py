"""Every stage of a case of FSSAM as our model computes it, under the reference's names."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from mmfss.encoders.sam2.memory_attention import MemoryFrames
from mmfss.functional import resize_mask, up


class Recorder:
    """Outputs of a model's modules in the order of calls, through forward hooks."""

    def __init__(self, model) -> None:
        self.calls: dict[str, list] = defaultdict(list)
        sam2 = model.sam2
        modules = {
            'neck': sam2.image_encoder.neck,
            'object_score': sam2.sam_mask_decoder.pred_obj_score_head,
            'memory': sam2.memory_encoder,
        }
        for i, layer in enumerate(sam2.memory_attention.layers):
            modules[f'attn.layer{i}'] = layer
            modules[f'attn.layer{i}.self_attn'] = layer.self_attn
            modules[f'attn.layer{i}.cross_attn'] = layer.cross_attn_image
        handles = [
            module.register_forward_hook(
                lambda _m, _i, out, name=name: self.calls[name].append(out)
            )
            for name, module in modules.items()
        ]
        handles.append(
            model.memory_refinement.register_forward_pre_hook(
                lambda _m, args: self.calls['refine'].append(args)
            )
        )
        self.handles = handles

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def trace_of(result) -> Any:
    """What led to a result: decoded, attended, pseudo_masks, query_frames, refined."""
    return result.trace


def run_case(model, x: Tensor, s_x: Tensor, s_y: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Every stage of a case as our model computes it, under the reference's names.

    Args:
        model: in training mode it also gets the gradients of the loss.
        x: (B, 3, S, S) queries in 0..255.
        s_x: (B, K, 3, S, S) supports.
        s_y: (B, K, S, S) their masks in {0, 1, 255}.
        y: (B, S, S) labels of the queries.
    """
    recorder = Recorder(model)
    with torch.set_grad_enabled(model.training):
        query = model.encode_image(x)
        supports = model.encode_image(s_x.flatten(0, 1))
        support = model.encode_support(supports, s_y)
        result = model.segment(query, support)
    trace = trace_of(result)
    with torch.no_grad():
        fg_pointer = model.sam2.encode_pointer(query.sam2, trace.pseudo_masks.fg)
    recorder.close()
    masks = (s_y == 1).float()
    positions = recorder.calls['neck'][0][1][: len(query.sam2.high_res) + 1]
    positions = [pos[:1].expand(len(x), -1, -1, -1) for pos in positions]
    stages = image_stages(query, supports, positions)
    stages.update(memory_stages(trace, support, masks, fg_pointer, recorder))
    stages.update(attention_stages(trace, support, masks, recorder))
    stages.update(decoder_stages(trace.decoded))
    if model.training:
        loss = model.loss_decode(result.logits[:, 0], y)
        loss.backward()
        stages['loss'] = loss
    pseudo = trace.pseudo_masks
    stages['priors_returned'] = (
        torch.cat([pseudo.fg, pseudo.ae], 1)
        if s_y.shape[1] == 1
        else torch.stack([pseudo.fg_per_shot, pseudo.ae_per_shot], 2)
    )
    return {key: value.detach() for key, value in stages.items()}


def image_stages(query, supports, positions: list[Tensor]) -> dict[str, Tensor]:
    stages = {'dino.query_last': query.prior, 'dino.support_last': supports.prior}
    for who, features in (('query', query), ('support', supports)):
        levels = (*features.sam2.high_res, features.sam2.top)
        stages.update({f'sam2.{who}.feat{i}': level for i, level in enumerate(levels)})
    stages.update({f'sam2.pos{i}': pos for i, pos in enumerate(positions)})
    return stages


def memory_stages(
    trace, support, masks: Tensor, fg_pointer: Tensor, recorder: Recorder
) -> dict[str, Tensor]:
    pseudo, grid = trace.pseudo_masks, trace.attended.shape[-2:]
    memory_fg, memory_ae = recorder.calls['refine'][0][:2]
    scores = recorder.calls['object_score']  # support, ae, final, fg
    side = pseudo.fg.shape[-1]
    stages = {
        'mem.support.mask_in': masks.flatten(0, 1).unsqueeze(1),
        'mem.support.feat': from_tokens(support.frames.spatial.flatten(0, 1), grid),
        'mem.support.obj_ptr': support.frames.pointers.flatten(0, 1).flatten(1),
        'mem.pos': recorder.calls['memory'][0]['vision_pos_enc'][-1],
        'mem.query_fg.mask_in': pseudo.fg,
        'mem.query_fg.feat': memory_fg,
        'mem.query_fg.obj_ptr': fg_pointer,
        'mem.query_ae.mask_in': pseudo.ae,
        'mem.query_ae.feat': memory_ae,
        'mem.query_ae.obj_ptr': trace.query_frames.pointers.flatten(1),
        'dec.support.object_score_logits': scores[0],
        'dec.query_ae.object_score_logits': scores[1],
        'dec.query_fg.object_score_logits': scores[3],
        'refine.in.sup_mask': resize_mask(masks, grid).flatten(0, 1).unsqueeze(1),
        'refine.in.prior_fg': up(pseudo.fg, grid),
        'refine.in.prior_ae': up(pseudo.ae, grid),
        'refine.prior_qry_sup': trace.refined.support_relevance,
    }
    for kind in ('fg', 'bg', 'ae'):  # named by the side of the published models, or by their own
        prior = getattr(pseudo, f'{kind}_per_shot')
        stages.update({f'prior.{kind}_512': prior, f'prior.{kind}_{side}': prior})
    for i, step in enumerate(trace.refined.steps, 1):
        stages[f'refine.{i}.prior_qry_qry'] = step.relevance
        stages[f'refine.{i}.mem'] = step.memory
        stages[f'refine.{i}.prior_ae'] = step.prior_ae
    return stages


def attention_stages(trace, support, masks: Tensor, recorder: Recorder) -> dict[str, Tensor]:
    grid = trace.attended.shape[-2:]
    frames = MemoryFrames.concat([support.frames, trace.query_frames])
    tokens, pos, num_pointers = frames.tokens()
    stages = {
        'attn.memory': tokens.transpose(0, 1),
        'attn.memory_pos': pos.transpose(0, 1),
        'attn.ptr_tokens': tokens.transpose(0, 1)[-num_pointers:],
        'attn.memory_mask': resize_mask(masks, grid, mode='nearest').flatten(0, 1).unsqueeze(1),
        'attn.num_obj_ptr_tokens': torch.tensor(num_pointers),
        'attn.output': trace.attended,
    }
    layers = {k: v[0] for k, v in recorder.calls.items() if k.startswith('attn.layer')}
    stages.update({name: from_tokens(out, grid) for name, out in layers.items()})
    return stages


def decoder_stages(decoded) -> dict[str, Tensor]:
    return {
        'dec.final.object_score_logits': decoded.object_score,
        'dec.final.low_res_multimasks': decoded.candidates,
        'dec.final.ious': decoded.ious,
        'dec.final.tokens': decoded.tokens,
        'dec.final.low_res_masks': decoded.low_res,
        'dec.final.high_res_masks': decoded.logits,
        'dec.final.best_idx': decoded.best,
        'output': decoded.logits[:, 0],
    }


def from_tokens(tokens: Tensor, grid) -> Tensor:
    """(N, n, C) -> (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(-1, tuple(grid))
