package stream

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kgo"
)

// worthCompressing is how many bytes a batch has at least where lz4 saves more
// than it costs: for each batch, whatever its size, both sides take a block of
// 4 MiB from a pool, or make a new one.
const worthCompressing = 4 << 10

// large compresses large batches alone.
type large struct{ kgo.Compressor }

// Compress implements kgo.Compressor.
func (l large) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	if len(src) < worthCompressing {
		return src, kgo.CodecNone
	}
	return l.Compressor.Compress(dst, src, flags...)
}

func (c Config) compression() kgo.Opt {
	lz4, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil || c.Compression == "none" { // the codec is known to it
		return kgo.ProducerBatchCompression(kgo.NoCompression())
	}
	return kgo.WithCompressor(large{lz4})
}
