# Upper bound: the true mask of the query in place of both pseudo masks. With it refinement
# changes nothing and is left out. Also a way to test the checkpoint of FSSAM with a perfect prompt.
_base_ = '../fss_sam2_shapes_1shot.py'

model = dict(prompt_generator=dict(type='OraclePromptGenerator'), memory_refinement=None)
