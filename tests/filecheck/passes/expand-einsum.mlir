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

// A diagonal, an ellipsis, a sum within one operand, an outer product, an output that goes without saying.
// CHECK-LABEL: func.func @stays
// CHECK-COUNT-5: forge.aten "aten::einsum"
// CHECK-NOT:     forge.matmul
func.func @stays(%x : tensor<4x4xf32>) -> (tensor<4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = forge.aten "aten::einsum"("ii->i", [%x]) : (tensor<4x4xf32>) -> tensor<4xf32>
  %1 = forge.aten "aten::einsum"("...i,ij->...j", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = forge.aten "aten::einsum"("ik,kj->kj", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = forge.aten "aten::einsum"("ij,ij->ij", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %4 = forge.aten "aten::einsum"("ik,kj", [%x, %x]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %0, %1, %2, %3, %4 : tensor<4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>
}
