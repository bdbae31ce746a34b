// RUN: not forgec opt %s -p 'cse,dcee{a=1},@O7' 2>&1 | filecheck %s

func.func @f() {
  func.return
}

// All problems of a pipeline are reported at once, each with the nearest name.
// CHECK:      error[FORGE-P001]: there is no pass dcee
// CHECK-NEXT:   help: did you mean dce?
// CHECK:      error[FORGE-P001]: there is no preset @O7
// CHECK-NEXT:   help: did you mean @O
