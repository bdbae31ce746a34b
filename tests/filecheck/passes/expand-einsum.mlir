// RUN: forgec opt %s -p 'expand-einsum' --split-input-file | filecheck %s

// DOC: the scores of attention, written as an einsum.
// CHECK-LABEL: func.func @scores
// CHECK-NEXT:    %[[Q:.*]] = forge.transpose %q [0, 2, 1, 3]
// CHECK-NEXT:    %[[K:.*]] = forge.transpose %k [0, 2, 3, 1]
// CHECK-NEXT:    forge.matmul %[[Q]], %[[K]]
func.func @scores(%q : tensor<2x9x4x8xf32>, %k : tensor<2x9x4x8xf32>) -> tensor<2x4x9x9xf32> {
  %0 = forge.aten "aten::einsum"("bind,bjnd->bnij", [%q, %k]) : (tensor<2x9x4x8xf32>, tensor<2x9x4x8xf32>) -> tensor<2x4x9x9xf32>
  func.return %0 : tensor<2x4x9x9xf32>
}

// -----

// Two summed indices, and two of one operand alone, are one dimension each.
// CHECK-LABEL: func.func @merged
// CHECK-NEXT:    forge.reshape %x : (tensor<9x4x8xf32>) -> tensor<9x32xf32>
// CHECK-NEXT:    forge.transpose %w [1, 2, 0] : (tensor<16x4x8xf32>) -> tensor<4x8x16xf32
// CHECK-NEXT:    forge.reshape {{.*}} -> tensor<32x16xf32
// CHECK-NEXT:    forge.matmul
// CHECK-NEXT:    func.return
func.func @merged(%x : tensor<9x4x8xf32>, %w : tensor<16x4x8xf32>) -> tensor<9x16xf32> {
  %0 = forge.aten "aten::einsum"("ind,hnd->ih", [%x, %w]) : (tensor<9x4x8xf32>, tensor<16x4x8xf32>) -> tensor<9x16xf32>
  func.return %0 : tensor<9x16xf32>
}

// -----

// CHECK-LABEL: func.func @permuted
// CHECK-NEXT:    forge.transpose %x [2, 0, 1]
func.func @permuted(%x : tensor<9x4x8xf32>) -> tensor<8x9x4xf32> {
  %0 = forge.aten "aten::einsum"("ijk->kij", [%x]) : (tensor<9x4x8xf32>) -> tensor<8x9x4xf32>
  func.return %0 : tensor<8x9x4xf32>
}

// -----

// An ellipsis, in front, and for as many indices of both; an output that goes without saying.
// CHECK-LABEL: func.func @ellipsis
// CHECK-NEXT:    %[[X:.*]] = forge.reshape %x {{.*}} -> tensor<6x4xf32>
// CHECK-NEXT:    forge.matmul %[[X]], %w
// CHECK:         forge.matmul {{.*}} -> tensor<2x3x4x4xf32>
// CHECK:         forge.matmul {{.*}} -> tensor<5x5xf32>
// CHECK-NOT:     aten::einsum
func.func @ellipsis(%x : tensor<2x3x4xf32>, %w : tensor<4x5xf32>, %y : tensor<2x3x4x5xf32>, %z : tensor<5x4xf32>) -> (tensor<2x3x5xf32>, tensor<2x3x4x4xf32>, tensor<5x5xf32>) {
  %0 = forge.aten "aten::einsum"("...i,ij->...j", [%x, %w]) : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
  %1 = forge.aten "aten::einsum"("...qd,...kd->...qk", [%y, %y]) : (tensor<2x3x4x5xf32>) -> tensor<2x3x4x4xf32>
  %2 = forge.aten "aten::einsum"("ik,kj", [%z, %w]) : (tensor<5x4xf32>, tensor<4x5xf32>) -> tensor<5x5xf32>
  func.return %0, %1, %2 : tensor<2x3x5xf32>, tensor<2x3x4x4xf32>, tensor<5x5xf32>
}

// -----

// A diagonal, a sum within one operand, an outer product, an ellipsis that broadcasts.
// CHECK-LABEL: func.func @stays
// CHECK-COUNT-4: forge.aten "aten::einsum"
// CHECK-NOT:     forge.matmul
func.func @stays(%x : tensor<4x4xf32>, %y : tensor<2x3x4xf32>, %z : tensor<1x4x5xf32>) -> (tensor<4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<2x3x5xf32>) {
  %0 = forge.aten "aten::einsum"("ii->i", [%x]) : (tensor<4x4xf32>) -> tensor<4xf32>
  %1 = forge.aten "aten::einsum"("ik,kj->kj", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = forge.aten "aten::einsum"("ij,ij->ij", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = forge.aten "aten::einsum"("...ij,...jk->...ik", [%y, %z]) : (tensor<2x3x4xf32>, tensor<1x4x5xf32>) -> tensor<2x3x5xf32>
  func.return %0, %1, %2, %3 : tensor<4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<2x3x5xf32>
}
