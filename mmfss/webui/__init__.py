"""The web page: show the model some marked images, label others, take the masks away.

``uploads`` checks what comes in, ``marking`` turns clicks and brush strokes into prompts and masks,
``session`` is what one visitor has done so far (``supports``, ``queries``, files in ``folder``),
``export`` is what is taken away, ``views`` how it looks, ``worker`` the one model that all share.
None of them knows Gradio; ``layout`` and ``page`` do, and ``cli`` starts them.
"""
