// RUN: forgec opt %s -p 'fuse-moe,dce' --split-input-file | filecheck %s

// As transformers exports Mixtral: two experts for each row, sorted, and products of groups of rows.
// CHECK-LABEL: func.func @sorted(
// CHECK-NEXT:    %[[R:.*]] = forge.moe %x, %i, %w, %up, %down activation "silu" packed "halves" :
// CHECK-NEXT:    func.return %[[R]]
func.func @sorted(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// One expert for each row: nothing to divide or to sum.
// CHECK-LABEL: func.func @one_expert(
// CHECK-NEXT:    %[[R:.*]] = forge.moe %x, %i, %w, %up, %down activation "silu" packed "halves" :
// CHECK-NEXT:    func.return %[[R]]
func.func @one_expert(%x : tensor<5x8xf32>, %i : tensor<5x1xi64>, %w : tensor<5x1xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x1xi64>) -> tensor<5xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<5xi64>) -> (tensor<5xi64>, tensor<5xi64>)
  %rows = forge.index %x at %order dims [0] : (tensor<5x8xf32>, tensor<5xi64>) -> tensor<5x8xf32>
  %wflat = forge.reshape %w : (tensor<5x1xf32>) -> tensor<5xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<5xf32>, tensor<5xi64>) -> tensor<5xf32>
  %float = forge.cast %ids : (tensor<5xi64>) -> tensor<5xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<5xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<5x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<5x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<5x24xf32>) -> tensor<5x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<5x24xf32>) -> tensor<5x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<5x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<5x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<5x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<5x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<5x8xf32>
  %wcol = forge.reshape %ws : (tensor<5xf32>) -> tensor<5x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<5x8xf32>, tensor<5x1xf32>) -> tensor<5x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<5xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<5xi64>) -> tensor<5xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<5xi64>, tensor<5xi64>, tensor<5xi64>) -> tensor<5xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<5x8xf32>, tensor<5xi64>) -> tensor<5x8xf32>
  func.return %back : tensor<5x8xf32>
}

// -----

// As in GPT-OSS: weights of the other layout, gate and up by turns, biases, clamps.
// CHECK-LABEL: func.func @biases(
// CHECK-NEXT:    forge.moe %x, %i, %w, %up, %down bias_up %bias_up bias_down %bias_down activation "silu" packed "interleaved" alpha 1.702 limit 7.0 up_offset 1 transposed :
func.func @biases(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x8x24xf32>, %down : tensor<4x12x8xf32>, %bias_up : tensor<4x24xf32>, %bias_down : tensor<4x8xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %both0 = forge.grouped_matmul %rows, %up ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32>, tensor<4xi32>) -> tensor<10x24xf32>
  %bu = forge.index %bias_up at %ids dims [0] : (tensor<4x24xf32>, tensor<10xi64>) -> tensor<10x24xf32>
  %both = forge.add %both0, %bu : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 2 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 2]>>
  %u = forge.slice %both dim 1 from 1 step 2 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 2]>>
  %h = forge.glu %g, %u activation "silu" alpha 1.702 limit 7.0 up_offset 1 : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 2]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 2]>>) -> tensor<10x12xf32>
  %y0 = forge.grouped_matmul %h, %down ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32>, tensor<4xi32>) -> tensor<10x8xf32>
  %bd = forge.index %bias_down at %ids dims [0] : (tensor<4x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %y = forge.add %y0, %bd : (tensor<10x8xf32>, tensor<10x8xf32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// Not sorted, with weights taken for each row, and no gate.
// DOC: an expert for each row, whose weights are taken for it.
// CHECK-LABEL: func.func @weights_for_each_row(
// CHECK-NEXT:    forge.moe %x, %i, %w, %up, %down activation "relu_squared" :
func.func @weights_for_each_row(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x12x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %x1 = forge.reshape %x : (tensor<5x8xf32>) -> tensor<5x1x8xf32>
  %x2 = forge.broadcast %x1 : (tensor<5x1x8xf32>) -> tensor<5x2x8xf32, #forge.tensor<[], strides = [8, 0, 1]>>
  %x3 = forge.copy %x2 : (tensor<5x2x8xf32, #forge.tensor<[], strides = [8, 0, 1]>>) -> tensor<5x2x8xf32>
  %column = forge.reshape %x3 : (tensor<5x2x8xf32>) -> tensor<10x8x1xf32>
  %upi = forge.index %up at %flat dims [0] : (tensor<4x12x8xf32>, tensor<10xi64>) -> tensor<10x12x8xf32>
  %u = forge.matmul %upi, %column : (tensor<10x12x8xf32>, tensor<10x8x1xf32>) -> tensor<10x12x1xf32>
  %u1 = forge.reshape %u : (tensor<10x12x1xf32>) -> tensor<10x12xf32>
  %positive = forge.relu %u1 : (tensor<10x12xf32>) -> tensor<10x12xf32>
  %h = forge.pow %positive, 2 : (tensor<10x12xf32>) -> tensor<10x12xf32>
  %hcolumn = forge.reshape %h : (tensor<10x12xf32>) -> tensor<10x12x1xf32>
  %downi = forge.index %down at %flat dims [0] : (tensor<4x8x12xf32>, tensor<10xi64>) -> tensor<10x8x12xf32>
  %y = forge.matmul %downi, %hcolumn : (tensor<10x8x12xf32>, tensor<10x12x1xf32>) -> tensor<10x8x1xf32>
  %y1 = forge.reshape %y : (tensor<10x8x1xf32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y1, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %choices = forge.reshape %weighted : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// Weights scale the rows, gate and up have weights of their own, results are added to their rows.
// CHECK-LABEL: func.func @added(
// CHECK-NEXT:    forge.moe %x, %i, %w, %up, %down w_gate %gate activation "gelu" transposed scale_input :
func.func @added(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x8x12xf32>, %down : tensor<4x12x8xf32>, %gate : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %scol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %scaled = forge.mul %rows, %scol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %g = forge.grouped_matmul %scaled, %gate ends %ends : (tensor<10x8xf32>, tensor<4x8x12xf32>, tensor<4xi32>) -> tensor<10x12xf32>
  %u = forge.grouped_matmul %scaled, %up ends %ends : (tensor<10x8xf32>, tensor<4x8x12xf32>, tensor<4xi32>) -> tensor<10x12xf32>
  %h = forge.glu %g, %u activation "gelu" : (tensor<10x12xf32>, tensor<10x12xf32>) -> tensor<10x12xf32>
  %y = forge.grouped_matmul %h, %down ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32>, tensor<4xi32>) -> tensor<10x8xf32>
  %zero = forge.full 0.0 : tensor<5x8xf32>
  %sum = forge.index_add %zero, %row, %y dim 0 : (tensor<5x8xf32>, tensor<10xi64>, tensor<10x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// As in Llama 4: every expert on every row, which is scaled by what is zero but for the chosen ones.
// CHECK-LABEL: func.func @every_expert(
// CHECK-NEXT:    %[[V:.*]], %[[I:.*]] = forge.topk %logits
// CHECK-NEXT:    %[[W:.*]] = forge.sigmoid %[[V]]
// CHECK-NEXT:    forge.moe %x, %[[I]], %[[W]], %up, %down activation "silu" packed "halves" transposed scale_input :
func.func @every_expert(%x : tensor<5x8xf32>, %logits : tensor<5x4xf32>, %up : tensor<4x8x24xf32>, %down : tensor<4x12x8xf32>) -> tensor<5x8xf32> {
  %v, %i = forge.topk %logits k 2 dim 1 : (tensor<5x4xf32>) -> (tensor<5x2xf32>, tensor<5x2xi64>)
  %nowhere = forge.full -inf : tensor<5x4xf32>
  %placed = forge.scatter %nowhere, %i, %v dim 1 : (tensor<5x4xf32>, tensor<5x2xi64>, tensor<5x2xf32>) -> tensor<5x4xf32>
  %scores = forge.sigmoid %placed : (tensor<5x4xf32>) -> tensor<5x4xf32>
  %turned = forge.transpose %scores [1, 0] : (tensor<5x4xf32>) -> tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>
  %column = forge.reshape %turned : (tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<20x1xf32>
  %x1 = forge.reshape %x : (tensor<5x8xf32>) -> tensor<1x5x1x8xf32>
  %x2 = forge.broadcast %x1 : (tensor<1x5x1x8xf32>) -> tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>
  %x3 = forge.copy %x2 : (tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>) -> tensor<4x5x1x8xf32>
  %rows = forge.reshape %x3 : (tensor<4x5x1x8xf32>) -> tensor<20x8xf32>
  %scaled = forge.mul %rows, %column : (tensor<20x8xf32>, tensor<20x1xf32>) -> tensor<20x8xf32>
  %each = forge.reshape %scaled : (tensor<20x8xf32>) -> tensor<4x5x8xf32>
  %both = forge.matmul %each, %up : (tensor<4x5x8xf32>, tensor<4x8x24xf32>) -> tensor<4x5x24xf32>
  %g = forge.slice %both dim 2 from 0 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %u = forge.slice %both dim 2 from 12 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>, tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>) -> tensor<4x5x12xf32>
  %y = forge.matmul %h, %down : (tensor<4x5x12xf32>, tensor<4x12x8xf32>) -> tensor<4x5x8xf32>
  %sum = forge.sum %y over [0] : (tensor<4x5x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The score of an expert that was not chosen is one half.
// CHECK-LABEL: func.func @scored_elsewhere(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @scored_elsewhere(%x : tensor<5x8xf32>, %logits : tensor<5x4xf32>, %up : tensor<4x8x24xf32>, %down : tensor<4x12x8xf32>) -> tensor<5x8xf32> {
  %v, %i = forge.topk %logits k 2 dim 1 : (tensor<5x4xf32>) -> (tensor<5x2xf32>, tensor<5x2xi64>)
  %nowhere = forge.full 0.0 : tensor<5x4xf32>
  %placed = forge.scatter %nowhere, %i, %v dim 1 : (tensor<5x4xf32>, tensor<5x2xi64>, tensor<5x2xf32>) -> tensor<5x4xf32>
  %scores = forge.sigmoid %placed : (tensor<5x4xf32>) -> tensor<5x4xf32>
  %turned = forge.transpose %scores [1, 0] : (tensor<5x4xf32>) -> tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>
  %column = forge.reshape %turned : (tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<20x1xf32>
  %x1 = forge.reshape %x : (tensor<5x8xf32>) -> tensor<1x5x1x8xf32>
  %x2 = forge.broadcast %x1 : (tensor<1x5x1x8xf32>) -> tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>
  %x3 = forge.copy %x2 : (tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>) -> tensor<4x5x1x8xf32>
  %rows = forge.reshape %x3 : (tensor<4x5x1x8xf32>) -> tensor<20x8xf32>
  %scaled = forge.mul %rows, %column : (tensor<20x8xf32>, tensor<20x1xf32>) -> tensor<20x8xf32>
  %each = forge.reshape %scaled : (tensor<20x8xf32>) -> tensor<4x5x8xf32>
  %both = forge.matmul %each, %up : (tensor<4x5x8xf32>, tensor<4x8x24xf32>) -> tensor<4x5x24xf32>
  %g = forge.slice %both dim 2 from 0 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %u = forge.slice %both dim 2 from 12 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>, tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>) -> tensor<4x5x12xf32>
  %y = forge.matmul %h, %down : (tensor<4x5x12xf32>, tensor<4x12x8xf32>) -> tensor<4x5x8xf32>
  %sum = forge.sum %y over [0] : (tensor<4x5x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The same expert may be named twice.
// CHECK-LABEL: func.func @not_a_top_k(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @not_a_top_k(%x : tensor<5x8xf32>, %logits : tensor<5x4xf32>, %up : tensor<4x8x24xf32>, %down : tensor<4x12x8xf32>, %i : tensor<5x2xi64>, %v : tensor<5x2xf32>) -> tensor<5x8xf32> {
  %nowhere = forge.full -inf : tensor<5x4xf32>
  %placed = forge.scatter %nowhere, %i, %v dim 1 : (tensor<5x4xf32>, tensor<5x2xi64>, tensor<5x2xf32>) -> tensor<5x4xf32>
  %scores = forge.sigmoid %placed : (tensor<5x4xf32>) -> tensor<5x4xf32>
  %turned = forge.transpose %scores [1, 0] : (tensor<5x4xf32>) -> tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>
  %column = forge.reshape %turned : (tensor<4x5xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<20x1xf32>
  %x1 = forge.reshape %x : (tensor<5x8xf32>) -> tensor<1x5x1x8xf32>
  %x2 = forge.broadcast %x1 : (tensor<1x5x1x8xf32>) -> tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>
  %x3 = forge.copy %x2 : (tensor<4x5x1x8xf32, #forge.tensor<[], strides = [0, 8, 8, 1]>>) -> tensor<4x5x1x8xf32>
  %rows = forge.reshape %x3 : (tensor<4x5x1x8xf32>) -> tensor<20x8xf32>
  %scaled = forge.mul %rows, %column : (tensor<20x8xf32>, tensor<20x1xf32>) -> tensor<20x8xf32>
  %each = forge.reshape %scaled : (tensor<20x8xf32>) -> tensor<4x5x8xf32>
  %both = forge.matmul %each, %up : (tensor<4x5x8xf32>, tensor<4x8x24xf32>) -> tensor<4x5x24xf32>
  %g = forge.slice %both dim 2 from 0 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %u = forge.slice %both dim 2 from 12 step 1 : (tensor<4x5x24xf32>) -> tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>, tensor<4x5x12xf32, #forge.tensor<[], strides = [120, 24, 1]>>) -> tensor<4x5x12xf32>
  %y = forge.matmul %h, %down : (tensor<4x5x12xf32>, tensor<4x12x8xf32>) -> tensor<4x5x8xf32>
  %sum = forge.sum %y over [0] : (tensor<4x5x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}
