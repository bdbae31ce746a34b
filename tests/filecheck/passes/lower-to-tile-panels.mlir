// RUN: forgec opt %s -p 'lower-to-tile{panel=32}' --split-input-file | filecheck %s

// The weight is a parameter of 3 panels of 32 rows, the last filled up with zeros: its kernel reads a panel at a time.
// CHECK:       forge.param @w.panels : tensor<3x16x32xf32> = {
// CHECK-NEXT:    %[[W:.*]] = forge.param_ref @w
// CHECK-NEXT:    %[[P:.*]] = forge.pad %[[W]] mode "constant" low [0, 0] high [26, 0] value 0.0
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %[[P]] : (tensor<96x16xf32>) -> tensor<3x32x16xf32>
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %[[R]] [0, 2, 1]
// CHECK-NEXT:    forge.yield %[[T]]
// CHECK:       func.func @linear
// CHECK:         %[[V:.*]] = forge.param_ref @w.panels : tensor<3x16x32xf32>
// CHECK-NEXT:    tile.launch @{{.*}}(%x, %[[V]])
// CHECK:       tile.kernel {{.*}}tiles [BM over 5, BK over 16] grid [floordiv(4, BM) + 1, 3]
// CHECK:         tile.load {{.*}} : !tile.block<tensor<16x32xf32>> -> tensor<?x32xf32
builtin.module {
  forge.param @w : tensor<70x16xf32>
  func.func @linear(%x : tensor<5x16xf32>) -> tensor<5x70xf32> {
    %0 = forge.param_ref @w : tensor<70x16xf32>
    %1 = forge.linear %x, %0 : (tensor<5x16xf32>, tensor<70x16xf32>) -> tensor<5x70xf32>
    func.return %1 : tensor<5x70xf32>
  }
}

// -----

// What something else reads too stays as it is, and so does what has no panels: a weight that is an input.
// CHECK-LABEL: func.func @elsewhere
// CHECK-NOT:     panels
// CHECK:         tile.launch {{.*}} (tensor<5x16xf32>, tensor<64x16xf32>)
builtin.module {
  forge.param @w : tensor<64x16xf32>
  func.func @elsewhere(%x : tensor<5x16xf32>, %v : tensor<64x16xf32>) -> (tensor<5x64xf32>, tensor<64x16xf32>, tensor<5x64xf32>) {
    %0 = forge.param_ref @w : tensor<64x16xf32>
    %1 = forge.linear %x, %0 : (tensor<5x16xf32>, tensor<64x16xf32>) -> tensor<5x64xf32>
    %2 = forge.exp %0 : (tensor<64x16xf32>) -> tensor<64x16xf32>
    %3 = forge.linear %x, %v : (tensor<5x16xf32>, tensor<64x16xf32>) -> tensor<5x64xf32>
    func.return %1, %2, %3 : tensor<5x64xf32>, tensor<64x16xf32>, tensor<5x64xf32>
  }
}

// -----

// The panels of one group's weight follow those of the other's: 2 of each. A program takes the rows of each group.
// CHECK:       forge.param @w.panels : tensor<6x16x32xf32> = {
// CHECK:         forge.pad %{{.*}} mode "constant" low [0, 0, 0] high [0, 24, 0]
// CHECK:       func.func @grouped
// CHECK:         tile.launch @grouped_matmul_{{.*}}tensor<6x16x32xf32>
// CHECK:       tile.kernel @grouped_matmul
// CHECK:         tile.load {{.*}} : !tile.block<tensor<16x32xf32>> -> tensor<?x32xf32
// CHECK:         tile.dot {{.*}} rows %{{.*}}, %{{.*}} transposed
builtin.module {
  forge.param @w : tensor<3x40x16xf32>
  func.func @grouped(%x : tensor<9x16xf32>, %ends : tensor<3xi32>) -> tensor<9x40xf32> {
    %0 = forge.param_ref @w : tensor<3x40x16xf32>
    %1 = forge.transpose %0 [0, 2, 1] : (tensor<3x40x16xf32>) -> tensor<3x16x40xf32, #forge.tensor<[], strides = [640, 1, 16]>>
    %2 = forge.grouped_matmul %x, %1 ends %ends : (tensor<9x16xf32>, tensor<3x16x40xf32, #forge.tensor<[], strides = [640, 1, 16]>>, tensor<3xi32>) -> tensor<9x40xf32>
    func.return %2 : tensor<9x40xf32>
  }
}
