// RUN: forgec opt %s -p lower-to-tile --remarks=missed --split-input-file 2>&1 | filecheck %s

// Tiles have no complex numbers: the op stays, and the remark says so.
// CHECK: {{.*}}has no kernel: complex numbers have no tiles
func.func @complex(%x: tensor<4xcomplex<f32>>, %i: tensor<2xi64>) -> tensor<2xcomplex<f32>> {
  %y = forge.index_select %x, %i dim 0 : (tensor<4xcomplex<f32>>, tensor<2xi64>) -> tensor<2xcomplex<f32>>
  func.return %y : tensor<2xcomplex<f32>>
}

// -----

// Moving them would need tiles as well.
// CHECK: {{.*}}forge.copy has no kernel: complex numbers have no tiles
func.func @moved(%x: tensor<4x2xcomplex<f32>>) -> tensor<4x2xcomplex<f32>> {
  %y = forge.copy %x : (tensor<4x2xcomplex<f32>>) -> tensor<4x2xcomplex<f32>>
  func.return %y : tensor<4x2xcomplex<f32>>
}

// -----

// What is tried by no rule has a remark as well.
// CHECK: {{.*}}aten::rand_like has no kernel: it draws random numbers, and moves torch's generator on
func.func @random(%x: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %y = forge.aten "aten::rand_like"(%x) random : (tensor<4x2xf32>) -> tensor<4x2xf32>
  func.return %y : tensor<4x2xf32>
}

// -----

// CHECK: {{.*}}aten::lgamma has no kernel: aten::lgamma has no rule
func.func @without_rule(%x: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %y = forge.aten "aten::lgamma"(%x) : (tensor<4x2xf32>) -> tensor<4x2xf32>
  func.return %y : tensor<4x2xf32>
}
