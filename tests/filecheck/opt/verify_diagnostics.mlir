// RUN: forgec opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: @good
func.func @good() {
  func.return
}

// -----

func.func @bad_types(%a : i32, %b : i64) -> i32 {
  // expected-error@+1 {{FORGE-I001}}
  %x = arith.addi %a, %b : i32
  func.return %x : i32
}

// -----

func.func @bad_return(%a : i32) -> i64 {
  // expected-error@below {{FORGE-I002: func.return does not verify: Expected arguments to have the same types}}
  func.return %a : i32
}

// -----

func.func @regex(%a : i32) -> i64 {
  func.return %a : i32 // expected-error-re {{func.return does not {{verif[iy]}}}}
}

// -----

func.func @use_before_definition(%a : i32) -> i32 {
  // expected-error@+1 {{uses operand 0 (%y) before it is defined}}
  %x = arith.addi %y, %a : i32
  %y = arith.addi %a, %a : i32
  func.return %x : i32
}

// CHECK-NOT: @bad
// CHECK-NOT: @regex
