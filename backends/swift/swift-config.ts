/** How to reach an account of OpenStack Swift (or of Ceph radosgw's Swift API). Plain data: it is handed to worker threads; never log it. */
export interface SwiftStoreConfig {
  readonly kind: 'swift';
  readonly auth: SwiftAuth;
  /** Keystone: region of the object-store endpoint; null: the catalog has one, or any will do. */
  readonly region: string | null;
  /** Keystone: which of the catalog's endpoints. */
  readonly endpointInterface: 'public' | 'internal' | 'admin';
  /** Account URL to use instead of the one that authentication names; null: that one. */
  readonly storageUrl: string | null;
  /** PEM file with the CAs to trust instead of the system's; null: the system's. */
  readonly caFile: string | null;
}

/** Version 1 is tempauth's, swauth's and radosgw's (`/auth/v1.0`); 3 is Keystone. */
export type SwiftAuth =
  | { readonly version: 1; readonly url: string; readonly user: string; readonly key: string }
  | {
      readonly version: 3;
      /** With or without `/v3`. */
      readonly url: string;
      readonly credentials:
        | {
            readonly kind: 'password';
            readonly user: string;
            readonly userDomain: string;
            readonly password: string;
            readonly project: string;
            readonly projectDomain: string;
          }
        | { readonly kind: 'application-credential'; readonly id: string; readonly secret: string };
    };
