// RUN: not forgec opt %s --split-input-file --verify-diagnostics 2>&1 | filecheck %s

func.func @unexpected(%a : i32) -> i64 {
  func.return %a : i32
}
// CHECK: error[FORGE-P006]: unexpected error: FORGE-I002: func.return does not verify
// CHECK-NEXT: unmet_expectations.mlir:4

// -----

// CHECK: error[FORGE-P006]: expected error was not reported: never happens
// CHECK-NEXT: unmet_expectations.mlir:[[# @LINE + 1]]
// expected-error@+1 {{never happens}}
func.func @fine() {
  func.return
}

// -----

// CHECK: error[FORGE-P006]: malformed expected-
// expected-error@nowhere {{}}
func.func @malformed() {
  func.return
}
