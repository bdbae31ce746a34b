// RUN: forgec opt %s -p 'dce,cse' --print-ir-after-all 2>&1 | filecheck %s --check-prefix=ALL
// RUN: forgec opt %s -p 'dce,cse,dce' --print-ir-after-change 2>&1 | filecheck %s --check-prefix=CHANGE
// RUN: forgec opt %s -p 'dce,cse' --print-ir-after-all --print-ir-filter='^d' 2>&1 | filecheck %s --check-prefix=ONLY
// RUN: forgec opt %s -p 'dce' --print-locations | filecheck %s --check-prefix=LOC

func.func @f(%a : i32) -> i32 {
  %x = arith.addi %a, %a : i32
  %y = arith.addi %a, %a : i32 loc("layers.0"("Block.forward"("model.py":7:0)))
  %z = arith.addi %x, %y : i32
  func.return %z : i32
}

// ALL: // -----// IR Dump After dce //----- //
// ALL: arith.addi
// ALL: // -----// IR Dump After cse //----- //

// CHANGE-NOT: After dce
// CHANGE: // -----// IR Dump After cse //----- //
// CHANGE-NOT: IR Dump

// ONLY: After dce
// ONLY-NOT: After cse

// LOC: arith.addi %a, %a : i32 loc("{{.*}}print_ir.mlir":7:3)
// LOC: arith.addi %a, %a : i32 loc("layers.0"("Block.forward"("model.py":7:0)))
