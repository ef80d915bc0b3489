package blob

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weir-dev/weir/internal/catalog"
)

// Bounds of a transfer to S3.
const (
	// partBytes is what a Put holds in memory. S3 takes 10,000 parts of an object, of 5 MiB at least.
	partBytes = 8 << 20
	maxParts  = 10000
	// MaxS3Object is the largest object that a Put can store.
	MaxS3Object = partBytes * maxParts
	// MaxS3Upload is the most that S3 takes in one request, as by a pre-signed URL.
	MaxS3Upload = 5 << 30
	// singleBytes is up to which size an object is one request instead of three.
	singleBytes = 256 << 10
	// credentialsEvery is how often the file of credentials is read again, so that they can be rotated.
	credentialsEvery = 30 * time.Second
	s3Retries        = 3
	// identityTimeout bounds a question for temporary credentials.
	identityTimeout = 10 * time.Second
)

// S3Config says where objects are kept.
type S3Config struct {
	Endpoint string // https://host[:port]
	// PublicEndpoint is where clients reach the same S3, for pre-signed URLs. Empty means Endpoint.
	PublicEndpoint string
	Region         string // empty means us-east-1
	Bucket         string // must exist
	Prefix         string // of all keys; empty, or ends in /
	// CredentialsFile is as the AWS command line's: aws_access_key_id and aws_secret_access_key below [default]. Empty means
	// what is found as AWS' own tools find it (ambient).
	CredentialsFile string
	CAFile          string // PEM: the only CAs that are trusted; empty means the system's
}

// Validate reports what is wrong, with the field and what to do.
func (c S3Config) Validate() error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("blob: S3 %s: "+format, append([]any{field}, args...)...))
	}
	for field, text := range map[string]string{"Endpoint": c.Endpoint, "PublicEndpoint": c.PublicEndpoint} {
		if text == "" && field == "PublicEndpoint" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			add(field, "%q is not of the form https://host:port; give the address alone, without credentials", text)
		}
	}
	if n := len(c.Bucket); n < 3 || n > 63 || strings.ContainsAny(c.Bucket, "/ _") || strings.ToLower(c.Bucket) != c.Bucket {
		add("Bucket", "%q is no name of a bucket; give 3 to 63 small letters, digits, dots and hyphens", c.Bucket)
	}
	if c.Prefix != "" && (!strings.HasSuffix(c.Prefix, "/") || strings.HasPrefix(c.Prefix, "/")) {
		add("Prefix", "%q must end in / and not begin with it; write %q", c.Prefix, strings.Trim(c.Prefix, "/")+"/")
	}
	return errors.Join(errs...)
}

// S3 keeps objects in a bucket, under Prefix + namespace/name/key. How long they are kept is up to the caller of
// Expire; only a quota of the bucket bounds their bytes.
type S3 struct {
	core   minio.Core
	public *minio.Client // for URLs only
	idle   func()        // closes the connections that are not in use
	cfg    S3Config
	now    func() time.Time
}

// NewS3 returns a store. It doesn't connect: S3 being away is an error of each call.
func NewS3(cfg S3Config, now func() time.Time) (*S3, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.PublicEndpoint == "" {
		cfg.PublicEndpoint = cfg.Endpoint
	}
	var roots *x509.CertPool
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("blob: S3 CAFile: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("blob: S3 CAFile: %s holds no certificate; give it in PEM", cfg.CAFile)
		}
	}
	creds := ambient("")
	if cfg.CredentialsFile != "" {
		creds = credentials.New(&credentialsFile{path: cfg.CredentialsFile, now: now})
	}
	idle := func() {}
	client := func(endpoint string) (*minio.Client, error) {
		u, err := url.Parse(endpoint)
		if err != nil {
			return nil, err
		}
		transport, err := minio.DefaultTransport(u.Scheme == "https")
		if err != nil {
			return nil, err
		}
		idle = transport.CloseIdleConnections
		if roots != nil && transport.TLSClientConfig != nil {
			transport.TLSClientConfig.RootCAs = roots
		}
		return minio.New(u.Host, &minio.Options{
			Creds: creds, Secure: u.Scheme == "https", Region: cfg.Region, Transport: transport, MaxRetries: s3Retries,
		})
	}
	public, err := client(cfg.PublicEndpoint) // makes no requests, so it has no connections to close
	if err != nil {
		return nil, fmt.Errorf("blob: S3: %w", err)
	}
	internal, err := client(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("blob: S3: %w", err)
	}
	return &S3{core: minio.Core{Client: internal}, public: public, idle: idle, cfg: cfg, now: now}, nil
}

// Close closes the connections that are not in use. It is idempotent.
func (s *S3) Close() { s.idle() }

// ambient are the credentials that AWS' own tools find by themselves: keys in the environment; else temporary ones, which are
// renewed, of a web identity (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, as of a Kubernetes service account), of the
// container, or of the machine. The client's own chain would go on without any where these are refused, and not say why.
// identity is who is asked for temporary ones; empty means AWS.
func ambient(identity string) *credentials.Credentials {
	if keys, err := (&credentials.EnvAWS{}).Retrieve(); err == nil && keys.AccessKeyID != "" && keys.SecretAccessKey != "" {
		return credentials.NewEnvAWS()
	}
	// A client of its own: CAFile is for S3, not for whom it asks. It asks too seldom to keep connections.
	client := &http.Client{Timeout: identityTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	return credentials.New(&credentials.IAM{Client: client, Endpoint: identity})
}

// credentialsFile reads the file again every credentialsEvery.
type credentialsFile struct {
	credentials.FileAWSCredentials
	path string
	now  func() time.Time
	read time.Time
}

func (c *credentialsFile) Retrieve() (credentials.Value, error) {
	return c.RetrieveWithCredContext(nil)
}

func (c *credentialsFile) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	c.Filename, c.read = c.path, c.now()
	return c.FileAWSCredentials.RetrieveWithCredContext(cc)
}

func (c *credentialsFile) IsExpired() bool { return c.now().Sub(c.read) >= credentialsEvery }

func (s *S3) prefix(queue catalog.Key) string {
	return s.cfg.Prefix + queue.Namespace + "/" + queue.Name + "/"
}

// Put is Store.Put. It holds one part in memory.
func (s *S3) Put(ctx context.Context, queue catalog.Key, key, contentType string, r io.Reader, limit int64) (Info, error) {
	if err := check(key, contentType); err != nil {
		return Info{}, err
	}
	l := &limited{r: r, left: min(limit, MaxS3Object)}
	start, err := io.ReadAll(io.LimitReader(l, singleBytes))
	if err != nil {
		return Info{}, err
	}
	// The client takes io.ErrUnexpectedEOF for the end of what there is; limited lets none through.
	opts := minio.PutObjectOptions{ContentType: contentType, PartSize: partBytes, NumThreads: 1}
	body, size := io.Reader(bytes.NewReader(start)), int64(len(start))
	if len(start) == singleBytes {
		body, size = io.MultiReader(body, l), -1
	}
	o, err := s.core.Client.PutObject(ctx, s.cfg.Bucket, s.prefix(queue)+key, body, size, opts)
	if l.err != nil {
		return Info{}, l.err
	}
	if err != nil {
		return Info{}, s3Error(ctx, err)
	}
	if contentType == "" {
		contentType = DefaultContentType
	}
	return Info{Size: o.Size, ContentType: contentType, ETag: o.ETag, Stored: s.now()}, nil
}

// Open is Store.Open.
func (s *S3) Open(ctx context.Context, queue catalog.Key, key string) (*Object, error) {
	if err := check(key, ""); err != nil {
		return nil, err
	}
	body, o, _, err := s.core.GetObject(ctx, s.cfg.Bucket, s.prefix(queue)+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, s3Error(ctx, err)
	}
	return &Object{&s3Reader{ctx: ctx, body: body, left: o.Size}, s3Info(&o)}, nil
}

// s3Reader returns io.EOF only when all bytes have been read.
type s3Reader struct {
	ctx  context.Context //nolint:containedctx // says why a Read failed
	body io.ReadCloser
	left int64
}

func (r *s3Reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left != 0: // only io.EOF itself is the end
		return n, fmt.Errorf("%w: %d bytes are missing", ErrGone, r.left)
	case err != nil && err != io.EOF:
		return n, s3Error(r.ctx, err)
	}
	return n, err
}

func (r *s3Reader) Close() error { return r.body.Close() }

// Stat is Store.Stat.
func (s *S3) Stat(ctx context.Context, queue catalog.Key, key string) (Info, error) {
	if err := check(key, ""); err != nil {
		return Info{}, err
	}
	o, err := s.core.Client.StatObject(ctx, s.cfg.Bucket, s.prefix(queue)+key, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, s3Error(ctx, err)
	}
	return s3Info(&o), nil
}

// PutBytes is Store.PutBytes.
func (s *S3) PutBytes() int64 { return partBytes }

// Delete is Store.Delete.
func (s *S3) Delete(ctx context.Context, queue catalog.Key, key string) error {
	if err := check(key, ""); err != nil {
		return err
	}
	err := s.core.RemoveObject(ctx, s.cfg.Bucket, s.prefix(queue)+key, minio.RemoveObjectOptions{})
	if err = s3Error(ctx, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Expire removes the objects of the queue that are older, and incomplete uploads. It returns how many, and goes on when
// one can't be removed.
func (s *S3) Expire(ctx context.Context, queue catalog.Key, olderThan time.Duration) (removed int, err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the listings, which are goroutines of the client's
	defer cancel()
	before := s.now().Add(-olderThan)
	old := make(chan minio.ObjectInfo)
	var listed error
	var count int
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(old)
		for o := range s.core.Client.ListObjects(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.prefix(queue), Recursive: true}) {
			if o.Err != nil {
				listed = s3Error(ctx, o.Err)
				return
			}
			if o.LastModified.Before(before) {
				old <- o // it is drained below in any case
				count++
			}
		}
	})
	var failed int
	var first error
	for e := range s.core.Client.RemoveObjects(ctx, s.cfg.Bucket, old, minio.RemoveObjectsOptions{}) { // a thousand a request
		if failed++; first == nil {
			first = fmt.Errorf("object %s: %w", e.ObjectName, s3Error(ctx, e.Err))
		}
	}
	for range old { // when RemoveObjects has ended early
		failed++
	}
	wg.Wait()
	removed = max(count-failed, 0)
	errs := []error{listed, first}
	for u := range s.core.ListIncompleteUploads(ctx, s.cfg.Bucket, s.prefix(queue), true) {
		if u.Err != nil {
			errs = append(errs, s3Error(ctx, u.Err))
			break
		}
		if !u.Initiated.Before(before) {
			continue
		}
		if err := s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, u.Key, u.UploadID); err != nil {
			errs = append(errs, s3Error(ctx, err))
			break
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

// PresignGet is Store.PresignGet. The browser is told to keep the object as a file, as the gateway would.
func (s *S3) PresignGet(ctx context.Context, queue catalog.Key, key string, expiry time.Duration) (Presigned, error) {
	if err := errors.Join(check(key, ""), checkExpiry(expiry)); err != nil {
		return Presigned{}, err
	}
	return s.presign(ctx, http.MethodGet, queue, key, expiry, url.Values{"response-content-disposition": {"attachment"}}, http.Header{})
}

// PresignPut is Store.PresignPut: length and type are among the signed headers.
func (s *S3) PresignPut(ctx context.Context, queue catalog.Key, key, contentType string, size int64, expiry time.Duration) (Presigned, error) {
	if err := errors.Join(check(key, contentType), checkExpiry(expiry)); err != nil {
		return Presigned{}, err
	}
	if size < 0 {
		return Presigned{}, errors.New("blob: an object has no negative size")
	}
	if size > MaxS3Upload {
		return Presigned{}, ErrTooLarge
	}
	headers := http.Header{"Content-Length": {strconv.FormatInt(size, 10)}}
	if contentType != "" {
		headers.Set("Content-Type", contentType)
	}
	return s.presign(ctx, http.MethodPut, queue, key, expiry, nil, headers)
}

func (s *S3) presign(ctx context.Context, method string, queue catalog.Key, key string, expiry time.Duration, query url.Values, headers http.Header) (Presigned, error) {
	expires := s.now().Add(expiry).Truncate(time.Second).UTC()
	u, err := s.public.PresignHeader(ctx, method, s.cfg.Bucket, s.prefix(queue)+key, expiry, query, headers.Clone())
	if err != nil {
		return Presigned{}, s3Error(ctx, err)
	}
	return Presigned{Method: method, URL: u.String(), Headers: headers, Expires: expires}, nil
}

func s3Info(o *minio.ObjectInfo) Info {
	return Info{Size: o.Size, ContentType: o.ContentType, ETag: o.ETag, Stored: o.LastModified}
}

// s3Error maps an error of the S3 client to this package's.
func s3Error(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	switch {
	case !ok: // no answer
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case answer.Code == minio.NoSuchKey:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case answer.StatusCode == http.StatusInsufficientStorage, strings.Contains(answer.Code, "QuotaExceeded"), answer.Code == "XMinioStorageFull":
		return fmt.Errorf("%w: %w", ErrFull, err)
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden, answer.Code == minio.NoSuchBucket:
		// Credentials that are being rotated, a wrong clock or name: an operator fixes it, and then S3 is available.
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case answer.StatusCode >= 500, answer.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("blob: S3: %w", err)
}
