"""Every diagnostic code with its title, explanation and remedy.

What ``forgec explain CODE`` prints and docs/errors.md lists.

Families: U usage, C capture, I intermediate representation, P passes, S schedules, B backends, A artifact, R run time,
V verification, X internal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """``title`` names the fact, ``explanation`` says when it happens and why, ``remedy`` what to do."""

    title: str
    explanation: str
    remedy: str


CATALOG: dict[str, Entry] = {
    "FORGE-U001": Entry(
        "file not found",
        "A path given on the command line or to an API call does not exist or cannot be read.",
        "Check the spelling and the working directory.",
    ),
    "FORGE-U002": Entry(
        "not a model",
        "The file was read, but it exposes no model. forgec takes a Python file with `model` and `example_inputs`, "
        "or a .pt2 file saved by torch.export.save.",
        "Define `model` and `example_inputs` at the top of the file, or name them with --entry FILE.py:NAME.",
    ),
    "FORGE-U003": Entry(
        "unknown target",
        "The target is none that this build of forgec has a backend for.",
        "Use one of the targets that the message lists.",
    ),
    "FORGE-U004": Entry(
        "output cannot be written",
        "The artifact or output file cannot be created in the named place. Nothing was written.",
        "Choose a folder that exists and that you may write to.",
    ),
    "FORGE-U005": Entry(
        "bad value for an option",
        "An option or argument has a value that forgec does not know how to use.",
        "The message says which values are accepted.",
    ),
    "FORGE-U006": Entry(
        "the model file raised an error",
        "Running the Python file that should define the model ended in an exception.",
        "Run the file with python to see the whole traceback, or pass --debug.",
    ),
    "FORGE-U007": Entry(
        "no such diagnostic",
        "`forgec explain` was asked for a code that does not exist.",
        "Run `forgec explain` without a code to list all of them.",
    ),
    "FORGE-U008": Entry(
        "the compiler is not installed",
        "forgec was installed to run artifacts; compiling takes more packages, one of which cannot be imported.",
        "Install them: `pip install 'forgec[compiler]'`.",
    ),
    "FORGE-U009": Entry(
        "no weight can be rounded",
        "Weights were to be stored in fewer bits, and no linear or embedding of the model reads one that can be: they "
        "are integers or as short already, state that the model changes, or read by something else too.",
        "The notes name the weights and the reasons. Leave out --weights.",
    ),
    "FORGE-U010": Entry(
        "not a graph, machine or schedule",
        "A file or value that should describe a dependence graph, a machine or a schedule has fields that are missing, "
        "unknown or out of range, or names something that it does not define.",
        "The message and its notes name each place. docs/scheduling.md describes the files.",
    ),
    "FORGE-C001": Entry(
        "the model could not be exported",
        "torch.export refused the model or the model raised an exception while it was traced.",
        "The notes hold torch's own reason. Run the model eagerly on the same inputs first.",
    ),
    "FORGE-C002": Entry(
        "example inputs of the wrong kind",
        "Example inputs must be a tuple (or list) of positional arguments and a dict of keyword arguments.",
        "Wrap a single tensor as `(x,)`.",
    ),
    "FORGE-C003": Entry(
        "an operation cannot be captured",
        "The exported graph holds an operation that forgec has no way to represent.",
        "The notes say which one; rewrite the line or file a report.",
    ),
    "FORGE-C004": Entry(
        "an input is of an unsupported type",
        "A model's input or output is neither a tensor, a number, a string, None nor a container of these.",
        "Pass tensors, numbers, or register the container with torch.utils._pytree.",
    ),
    "FORGE-C005": Entry(
        "mutation through unknown aliasing",
        "The model writes through a tensor whose aliasing with other tensors cannot be determined.",
        "Clone the tensor before the write.",
    ),
    "FORGE-C006": Entry(
        "too many signatures",
        "A decorated function was called with more distinct input signatures than its bound.",
        "Raise max_signatures, or declare dynamic_shapes so that one compilation serves many shapes.",
    ),
    "FORGE-C007": Entry(
        "the model changes an attribute, a variable or an argument",
        "While it was traced the model's Python code changed an attribute of a module or another object, a list, dict "
        "or set, a global variable, or a container among its arguments. The compiled program holds the values that "
        "these had when tracing began, and does not change them; eager PyTorch would.",
        "Keep what changes from call to call in a buffer that holds a tensor from the start (register_buffer), which "
        "becomes state of a session; return what arguments should hold.",
    ),
    "FORGE-C008": Entry(
        "the model seeds the random number generator",
        "While it was traced the model called torch.manual_seed, torch.seed or torch.set_rng_state, which torch.export "
        "leaves out. The compiled program draws its random numbers from the generator as it is when it is called.",
        "Seed the generator before the call: the compiled program then draws the numbers that eager PyTorch would.",
    ),
    "FORGE-C009": Entry(
        "the model computes with something that it changes and that cannot be state",
        "Numbers, and tensors of one shape and dtype, that a model keeps in attributes from call to call become state "
        "of a session. The model does more: it decides by such a number (which is another at each call), or its "
        "second call computes something else than its first because of an attribute, a list, a dict or a global "
        "variable that the first one changed. One program cannot stand for both.",
        "Keep what changes in buffers that hold tensors from the start (register_buffer), and let tensors decide "
        "(torch.where, torch.cond); set up before compiling what only the first call sets up.",
    ),
    "FORGE-I001": Entry(
        "IR text cannot be parsed",
        "The text is not valid MLIR for the dialects that forgec knows.",
        "The message shows the position.",
    ),
    "FORGE-I002": Entry(
        "IR does not verify",
        "An operation breaks an invariant of its dialect.",
        "The message names the operation and the invariant.",
    ),
    "FORGE-I003": Entry(
        "an operation has no reference implementation",
        "The reference interpreter cannot execute this operation.",
        "Remove the operation from the graph, or run without the interpreter.",
    ),
    "FORGE-O001": Entry(
        "optimised",
        "A pass has replaced ops by one that says the same in fewer kernels. `--remarks=applied` shows these remarks.",
        "Nothing.",
    ),
    "FORGE-O002": Entry(
        "not optimised",
        "A pass found what looks like something that it optimises, and left it alone. The remark says why, and which "
        "line of the model it is about. `--remarks=missed` shows these remarks.",
        "Write the model as the remark says, or accept the speed.",
    ),
    "FORGE-P001": Entry(
        "unknown pass or preset",
        "A pipeline names a pass or a preset that does not exist.",
        "`forgec opt --list-passes` prints all of them.",
    ),
    "FORGE-P002": Entry(
        "bad pipeline",
        "The pipeline's text cannot be parsed, or a pass was given an option that it does not have.",
        "Pipelines read `pass,pass{option=value},@preset`.",
    ),
    "FORGE-P003": Entry(
        "a pass broke the IR",
        "The module did not verify after a pass. This is a defect of forgec; a reproducer was written.",
        "Please report it with the reproducer.",
    ),
    "FORGE-P004": Entry(
        "a pass changed the result",
        "The numeric check found that the reference interpreter gives another result after a pass than before it.",
        "Please report it with the reproducer.",
    ),
    "FORGE-P005": Entry(
        "a pass failed",
        "A pass ended in an exception. This is a defect of forgec; a reproducer was written.",
        "Please report it with the reproducer.",
    ),
    "FORGE-P006": Entry(
        "expected diagnostics do not match",
        "--verify-diagnostics compares the diagnostics of each piece with its `expected-error` comments.",
        "Mend the comment or the IR.",
    ),
    "FORGE-S001": Entry(
        "no schedule fits",
        "A loop has no legal schedule on the machine at any interval, with any of its tiles: its buffers, registers, "
        "warps or streams need more than there is. Where an op or a value is too much by itself, the message says "
        "which, how much it takes and how much there is. Else the constraints named are in conflict, and without any "
        "one of them there is a schedule, but for those of which the time limit left that open.",
        "Take smaller tiles or fewer sub-tiles, or a machine with more of what the message names.",
    ),
    "FORGE-S002": Entry(
        "no schedule was found",
        "The solver neither found a schedule nor proved that there is none before its time was over, or before it had "
        "looked at as many as it does where what it finds is not legal as a whole.",
        "Raise --time-limit, or make one of the loops smaller. This says nothing about whether a schedule exists.",
    ),
    "FORGE-S010": Entry(
        "a schedule is not legal",
        "A stored schedule breaks rules of the definition: what starts too early, is held twice, does not fit; or it "
        "says of itself what is not so: its slack, its bounds, a status that its refuted intervals do not prove. Each "
        "violation names its rule.",
        "forgec/schedule/schedule.py states the rules, forgec/schedule/claims.py what is computed again. Schedule the "
        "kernel again for the machine at hand.",
    ),
    "FORGE-S011": Entry(
        "a stored schedule was dropped",
        "A schedule in the cache could not be read, or the checker found it illegal for the graphs and the machine "
        "that were asked for. The kernel is solved anew, and the entry replaced.",
        "Nothing has to be done. Where it comes back, something else writes to the cache folder.",
    ),
    "FORGE-S020": Entry(
        "a schedule cannot be carried out on a kernel",
        "A kernel's loop was to become code for groups of warps by a schedule, and the schedule does not say all that "
        "this takes, or the kernel does something that groups of warps cannot be given.",
        "The message says what it is. Kernels that cannot be scheduled run as they are.",
    ),
    "FORGE-B001": Entry(
        "an operation has no native kernel",
        "With --fallback error, an operation that only ATen can execute stops the compilation.",
        "Use --fallback allow, or replace the operation.",
    ),
    "FORGE-B002": Entry(
        "an operation cannot be lowered",
        "The backend has no rule for this operation with these operands.",
        "The message names the operation and the line of the model.",
    ),
    "FORGE-B003": Entry(
        "a kernel cannot be compiled",
        "LLVM refused the code that was generated for a kernel, or made an object that calls functions of a library, "
        "which kernels do without.",
        "Name a CPU that has the instructions (x86-64-v3 has those for float16 and fused multiply-add); otherwise "
        "please report it.",
    ),
    "FORGE-B004": Entry(
        "a kernel's machine code cannot be linked",
        "The object code of a kernel refers to a symbol that no kernel defines, has a relocation or a section that a "
        "position-independent image without a dynamic linker cannot hold, or is no object file for x86-64. This is a "
        "defect of the backend that emitted it.",
        "Please report it with the message.",
    ),
    "FORGE-B005": Entry(
        "a kernel has no form in Triton",
        "Triton's language cannot say what the kernel does: a tile extent that is no power of two, an element type or "
        "an atomic operation that it lacks, a tile that is too large.",
        "Bind other tile extents, or compile for another target.",
    ),
    "FORGE-B006": Entry(
        "a kernel could not be compiled for the GPU",
        "Triton or ptxas refused the kernel, or ptxas warned that it serialises asynchronous matrix products (C75xx).",
        "The notes hold the compiler's own words. An element type may need a newer architecture.",
    ),
    "FORGE-B007": Entry(
        "the package triton is not installed",
        "Compiling for a GPU needs the package triton, which is there for Linux only.",
        "Install it: `pip install 'forgec[gpu]'`.",
    ),
    "FORGE-A001": Entry(
        "not a forge artifact",
        "The file is not a zip archive with a forge manifest, or it is truncated.",
        "Compile the model again, or copy the file again.",
    ),
    "FORGE-A002": Entry(
        "artifact of another format version",
        "The artifact was written by a forgec whose format this runtime does not read.",
        "Compile the model again with this version of forgec, or load it with the version that the manifest names.",
    ),
    "FORGE-A003": Entry(
        "artifact is damaged",
        "A member's size or hash differs from the manifest.",
        "Copy the file again, or compile the model again.",
    ),
    "FORGE-A004": Entry(
        "artifact's plan is not valid",
        "The plan breaks an invariant (a register out of range, an offset outside the arena, an unknown operation). "
        "It was not run.",
        "Compile the model again; a plan that forgec wrote always passes.",
    ),
    "FORGE-A005": Entry(
        "external weights are missing or differ",
        "The artifact refers to a weights file that is not there, or that is not the one it was compiled with.",
        "Put the file beside the artifact, or pass its path.",
    ),
    "FORGE-A006": Entry(
        "torch is needed to run this artifact",
        "The plan holds ATen operations and torch cannot be imported, or this torch lacks one of them, or a device.",
        "Install a torch of at least the version that the message names. Operations of other libraries "
        "(torch.library.custom_op) exist only once the module that registers them has been imported.",
    ),
    "FORGE-A007": Entry(
        "this processor cannot run the kernels",
        "The artifact's kernels were compiled for an instruction set that this machine does not have, or not in full; "
        "running them would end the process.",
        "Compile for this machine, for an older instruction set, or for cpu:aten; the message names the features that "
        "are missing. `forgec check --machine` tells what an artifact needs.",
    ),
    "FORGE-A008": Entry(
        "no executable memory",
        "The artifact holds machine code, and this system refuses to map it executable: from the file, from a file in "
        "memory and as anonymous memory.",
        "The notes say what the system refused. Allow it for this process, or compile for cpu:aten, which has no code.",
    ),
    "FORGE-R001": Entry(
        "wrong number or structure of arguments",
        "The call's arguments do not have the structure that the artifact was compiled for.",
        "Call it like the model: the message shows both structures.",
    ),
    "FORGE-R002": Entry(
        "wrong dtype",
        "A tensor argument has another dtype than the artifact was compiled for.",
        "Convert the argument, or compile with an example of that dtype.",
    ),
    "FORGE-R003": Entry(
        "wrong shape",
        "A tensor argument has another shape than the artifact was compiled for.",
        "Pass the compiled shape, or compile with dynamic_shapes.",
    ),
    "FORGE-R004": Entry(
        "extent out of range",
        "A dynamic extent of a tensor argument lies outside the range that was declared when compiling.",
        "Compile with a larger range, or split the input.",
    ),
    "FORGE-R005": Entry(
        "wrong device",
        "A tensor argument lives on another device than the artifact was compiled for.",
        "Move the argument.",
    ),
    "FORGE-R006": Entry(
        "wrong value of a fixed argument",
        "A non-tensor argument (a number, bool, string or None) is part of the compiled program and differs from the "
        "example's value.",
        "Pass the same value, or compile again with the new one.",
    ),
    "FORGE-R007": Entry(
        "an operation failed at run time",
        "An operation of the plan raised an error while the artifact ran.",
        "The message names the operation and the line of the model.",
    ),
    "FORGE-R008": Entry(
        "unsupported kind of tensor",
        "A tensor argument is sparse, nested, quantised or otherwise not a plain strided tensor; or it is a fake "
        "tensor, or one that torch.func transforms; or the call writes it, and it is a read-only array, or elements of "
        "it share memory with one another or with another argument; or it lies otherwise than the example did, and the "
        "model reads or writes through its memory (`as_strided`, a write into what `reshape` made).",
        "Convert the argument with `.to_dense()`, or pass a (contiguous) copy.",
    ),
    "FORGE-R009": Entry(
        "session in an undefined state",
        "An earlier call of this session failed after it had begun to write the session's state.",
        "Call `reset()` of the session, or of the model if you opened none; or open a new session.",
    ),
    "FORGE-R010": Entry(
        "not enough memory for a call",
        "The arena, an output or an operation's result could not be allocated.",
        "Run fewer calls at once or smaller inputs; `forgec inspect --memory` shows what a call needs.",
    ),
    "FORGE-R011": Entry(
        "an assertion of the model failed",
        "The model checks its inputs or what it computes (`torch._assert`, `torch._check`), and the check failed.",
        "The message is the model's own where torch.export keeps it; the place is the line of the check.",
    ),
    "FORGE-R012": Entry(
        "a container is not registered here",
        "The model takes or returns a container of a class that was registered with torch.utils._pytree when it was "
        "compiled, and that this process does not have. Artifacts hold the class's name, not its code.",
        "Import the module that defines and registers the class before the call.",
    ),
    "FORGE-R013": Entry(
        "gradients do not flow through a compiled program",
        "An input requires grad and autograd is on. Compiled programs are for inference: what they return has no "
        "gradients, neither to inputs nor to weights. The warning comes once for each program.",
        "Call it under `torch.no_grad()` or `torch.inference_mode()`; train the model that it was compiled from.",
    ),
    "FORGE-R014": Entry(
        "a kernel's check failed",
        "A kernel found that a value is not what the operation accepts, for example an index outside the table that it "
        "indexes. What the call would have written is undefined, as after any failed call. The error is also "
        "an IndexError.",
        "The message says what was checked; the place is the line of the model.",
    ),
    "FORGE-V001": Entry(
        "the compiled program differs",
        "`forgec verify` found that the compiled program computes something else than eager PyTorch (or, of an "
        "artifact, than the float64 interpreter), by more than the tolerance. The table says by how much, and where in "
        "the model errors arise.",
        "Where the error against float64 is about eager PyTorch's own, it is rounding: raise --rtol. Otherwise `forgec "
        "bisect` finds the pass, the op and the line; please report what it writes.",
    ),
    "FORGE-V002": Entry(
        "the model draws random numbers",
        "Two calls of a model that draws random numbers differ, so that a comparison would say nothing.",
        "Put the model into evaluation mode (`model.eval()`), or pass it the numbers as an input.",
    ),
    "FORGE-V003": Entry(
        "capture, lowering or the runtime changed the result",
        "`forgec bisect` found that all passes keep the result, and that what comes before or after them does not: "
        "torch.export or its import, or the execution of the plan.",
        "Please report it with the reproducer.",
    ),
    "FORGE-V004": Entry(
        "the model failed",
        "The model itself raised an error on the inputs that were given, so that there is nothing to compare with.",
        "Run the model eagerly on the same inputs.",
    ),
    "FORGE-V005": Entry(
        "rounding may differ as much",
        "The compiled program differs from eager PyTorch by more than what is allowed, but by no more than rounding "
        "alone may make. Either the tensor is ill-conditioned: in the program's own precision it is further than a "
        "tenth of its largest magnitude from what float64 gives, as where numbers cancel or a great number swallows "
        "others. Or the tolerance that was given lies below the rounding of the narrowest dtype in the program. A "
        "defect of forgec would look the same.",
        "Give a tolerance (`--rtol`, `--atol`) that means something for the model, other inputs, or a wider dtype "
        "(`--dtype float64`), in which rounding hides nothing.",
    ),
    "FORGE-X001": Entry(
        "internal error",
        "forgec broke one of its own assumptions. This is a defect of forgec, not of the model.",
        "Please report it with the reproducer or with the output of --debug.",
    ),
    "FORGE-X002": Entry(
        "groups of warps wait for each other",
        "A scheduled kernel came to a point at which none of its groups can go on: each waits for a slot of a channel "
        "that another one has to fill or to free first.",
        "The notes say who waits for what. A channel with too few slots, or puts and gets in another order than the "
        "schedule's, are the usual reasons.",
    ),
}
