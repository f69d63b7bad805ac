"""The web page: show the model some marked images, label others, look through the results, take
labels away.

What a visitor has: ``uploads`` checks what comes in, ``marking`` turns clicks and brush strokes
into prompts and masks, ``supports`` and ``queries`` are images to mark and to label,
``marking_session`` and ``session`` the steps of one visitor, ``review`` those of looking through
results, ``example`` what may be tried, ``export`` what is taken away, ``worker`` the one model that
all share. Where it stays: ``visitors`` has the sessions, ``memory`` says how much they hold,
``folders`` where their files are, ``keeping`` writes and takes up what stays on disk. ``guard``
says who may ask for what. None of them knows Gradio.

The page itself: ``views`` is how a session looks, ``canvas`` what is painted on, ``layout`` the
components, ``showing`` what is shown on them, ``handlers`` what happens on them and ``page`` what
calls which; ``static`` is what runs in the browser. :mod:`mmfss.commands.webui` starts them.
"""
