// RUN: forgec opt %s -p lower-to-tile --split-input-file | filecheck %s

// Causality and a window are a band of both products: of places in the columns' tile less places in the rows' tile.
// Values need no condition, since the product reads none outside of the band.
// CHECK:       tile.kernel @attention
// CHECK:         %[[ROW:.*]] = tile.index BM * p0
// CHECK:         scf.for %[[COLUMN:[0-9]+]] =
// CHECK:           %[[LOW:.*]] = tile.index p0 - p1 - 19(%[[ROW]], %[[COLUMN]])
// CHECK:           %[[HIGH:.*]] = tile.index p0 - p1 + 1(%[[ROW]], %[[COLUMN]])
// CHECK:           tile.dot {{.*}} rows %[[LOW]], %[[HIGH]] band "result" transposed
// CHECK:           %[[V:.*]] = tile.load %{{.*}} -> tensor<?x?xf32, #forge.tensor<[BD, BN]>>
// CHECK:           tile.dot %{{.*}}, %[[V]] into %{{.*}} rows %[[LOW]], %[[HIGH]] band "sum" transposed
// CHECK:         arith.divf %{{.*}} : tensor<?xf32, #forge.tensor<[BM]>>
builtin.module {
  func.func @causal(%q : tensor<1x4x64x16xf32>, %k : tensor<1x2x64x16xf32>, %v : tensor<1x2x64x16xf32>) -> tensor<1x4x64x16xf32> {
    %0 = forge.attention %q, %k, %v causal window 20 : (tensor<1x4x64x16xf32>, tensor<1x2x64x16xf32>, tensor<1x2x64x16xf32>) -> tensor<1x4x64x16xf32>
    func.return %0 : tensor<1x4x64x16xf32>
  }
}

// -----

// Nothing is masked: no band.
// CHECK-LABEL: func.func @full
// CHECK-NOT:     band
builtin.module {
  func.func @full(%q : tensor<1x4x64x16xf32>, %k : tensor<1x2x64x16xf32>) -> tensor<1x4x64x16xf32> {
    %0 = forge.attention %q, %k, %k : (tensor<1x4x64x16xf32>, tensor<1x2x64x16xf32>, tensor<1x2x64x16xf32>) -> tensor<1x4x64x16xf32>
    func.return %0 : tensor<1x4x64x16xf32>
  }
}

// -----

// A single query of few heads has its columns in parts, which a second kernel joins.
// CHECK-LABEL: func.func @parts
// CHECK:         %[[P:.*]], %[[G:.*]], %[[W:.*]] = tile.launch @attention_parts_{{.*}}(%q, %k) {{.*}} -> (tensor<1x4x2x1x16xf32>, tensor<1x4x2x1x16xf32>, tensor<1x4x2x1x16xf32>)
// CHECK:         tile.launch @attention_join_{{.*}}(%[[P]], %[[G]], %[[W]])
// CHECK:       tile.kernel @attention_parts_{{.*}} tiles [BM over 2, BD whole 16, BN over 150] grid [2, floordiv(1, BM) + 1, 2]
// CHECK:       tile.kernel @attention_join
builtin.module {
  func.func @parts(%q : tensor<1x4x1x16xf32>, %k : tensor<1x2x300x16xf32>) -> tensor<1x4x1x16xf32> {
    %0 = forge.attention %q, %k, %k : (tensor<1x4x1x16xf32>, tensor<1x2x300x16xf32>, tensor<1x2x300x16xf32>) -> tensor<1x4x1x16xf32>
    func.return %0 : tensor<1x4x1x16xf32>
  }
}

// -----

// Enough heads are programs enough: no parts.
// CHECK-LABEL: func.func @many_heads
// CHECK:         tile.launch @attention_{{[0-9a-f]+}}(%q, %k)
// CHECK-NOT:     attention_join
builtin.module {
  func.func @many_heads(%q : tensor<1x16x1x16xf32>, %k : tensor<1x8x300x16xf32>) -> tensor<1x16x1x16xf32> {
    %0 = forge.attention %q, %k, %k : (tensor<1x16x1x16xf32>, tensor<1x8x300x16xf32>, tensor<1x8x300x16xf32>) -> tensor<1x16x1x16xf32>
    func.return %0 : tensor<1x16x1x16xf32>
  }
}
