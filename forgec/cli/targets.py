"""What the commands say of ``--target``."""

COMPILE_HELP = (
    "What to compile for: cpu (machine code for x86-64-v3 and x86-64-v4, chosen at load), cpu:x86-64-v3, "
    "cpu:x86-64-v4, cpu:host (this processor's), cpu:aten (torch's operations).  [default: FORGEC_TARGET, else cpu]"
)
MODEL_HELP = "What to compile a model for.  [default: FORGEC_TARGET, else cpu:host]"
